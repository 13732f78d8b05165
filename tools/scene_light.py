"""What surrounds the bundled scenes and lights them: a room with windows, and a sky with a low sun."""

from __future__ import annotations

import numpy as np
import scene_paints as paints

SUN_BEARING, SUN_HEIGHT = 236.0, 29.0  # degrees, by compass from +y to +x, and above the horizon


def studio(height: int = 256) -> np.ndarray:
    """Surrounding light (height, 2 height, 3), linear: a pale room with a warm window, a cool one and a strip light."""
    elevation = np.radians(90 - (np.arange(height) + 0.5) / height * 180)[:, None]
    azimuth = np.radians((np.arange(2 * height) + 0.5) / (2 * height) * 360)[None]
    up = np.sin(elevation) + 0 * azimuth
    sky = paints.mix(np.array([0.36, 0.33, 0.30]), np.array([0.28, 0.33, 0.42]), paints.edge(-0.2, 0.9, up))
    light = paints.mix(np.array([0.16, 0.12, 0.09]), sky, paints.edge(-0.35, 0.05, up))
    lamps = [  # azimuth, elevation, half width, half height in degrees; colour
        (-60, 48, 24, 20, (17.0, 14.2, 11.0)),
        (115, 34, 34, 22, (3.0, 3.8, 5.0)),
        (200, 40, 7, 30, (6.5, 6.0, 5.6)),
        (20, 20, 10, 14, (2.6, 2.4, 2.2)),
    ]
    for at, high, wide, tall, radiance in lamps:
        across = np.degrees((azimuth - np.radians(at) + np.pi) % (2 * np.pi) - np.pi)
        across = across * np.cos(np.radians(high))  # as wide up there as at the horizon
        rise = np.degrees(elevation) - high
        window = paints.edge(wide + 2.5, wide - 2.5, np.abs(across)) * paints.edge(tall + 2.5, tall - 2.5, np.abs(rise))
        bars = 1 - 0.75 * np.maximum(paints.ticks(across, wide, 2.2), paints.ticks(rise, tall, 2.2))
        light = light + (window * bars)[..., None] * np.array(radiance)
    return light


def heading(bearing: float, height: float) -> np.ndarray:
    """Unit direction (3,) of a compass bearing from +y to +x and a height above the horizon, in degrees."""
    b, e = np.radians([bearing, height])
    return np.array([np.sin(b) * np.cos(e), np.cos(b) * np.cos(e), np.sin(e)])


def sky(height: int = 1024) -> np.ndarray:
    """Surrounding light (height, 2 height, 3), linear: late afternoon, fair-weather clouds, a sun 1.6 degrees across.

    The sun is three times as wide as the real one, so that its shadows have soft rims and its light little noise.
    """
    elevation = np.radians(90 - (np.arange(height) + 0.5) / height * 180)[:, None]
    bearing = np.radians((np.arange(2 * height) + 0.5) / (2 * height) * 360)[None]
    ray = np.stack(
        np.broadcast_arrays(
            np.sin(bearing) * np.cos(elevation), np.cos(bearing) * np.cos(elevation), np.sin(elevation) + 0 * bearing
        ),
        axis=-1,
    )
    up = ray[..., 2]
    toward = ray @ heading(SUN_BEARING, SUN_HEIGHT)
    blue = paints.mix(np.array([0.25, 0.44, 0.78]), np.array([0.075, 0.20, 0.56]), paints.edge(0.05, 0.9, up))
    haze = np.exp(-np.maximum(up, 0) / 0.13)
    light = paints.mix(blue, np.array([0.80, 0.80, 0.78]), 0.85 * haze)
    warm = np.exp((toward - 1) / 0.05) + 0.35 * np.exp((toward - 1) / 0.35)
    light = light + warm[..., None] * np.array([0.55, 0.40, 0.22])
    light = clouded(light, ray, toward)
    ground = np.array([0.20, 0.18, 0.14])
    light = paints.mix(ground, light, paints.edge(-0.03, 0.0, up))
    disc = paints.edge(np.cos(np.radians(0.95)), np.cos(np.radians(0.7)), toward)
    return light + disc[..., None] * np.array([9200.0, 7000.0, 4500.0])


def clouded(light: np.ndarray, ray: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """``light`` (h, w, 3) with heaped clouds on a high plane, brighter towards the sun; ``toward`` is its cosine."""
    up = ray[..., 2]
    plane = ray[..., :2] / (np.maximum(up, 0) + 0.16)[..., None]
    place = np.concatenate([1.5 * plane, np.zeros_like(plane[..., :1])], axis=-1) + 5.0
    place = place + 0.35 * paints.clouds(place * 1.7, 81, 2)[..., None]
    thick = paints.clouds(place, 82, 6)
    # The same cloud a little nearer to the sun: where it is thinner there, this side is lit.
    sun = heading(SUN_BEARING, SUN_HEIGHT)
    nearer = paints.clouds(place + 0.18 * np.array([sun[0], sun[1], 0.0]), 82, 4)
    cover = paints.edge(0.50, 0.66, thick) * paints.edge(0.02, 0.12, up)
    lit = np.clip(0.62 + 2.2 * (thick - nearer) - 0.5 * paints.edge(0.6, 0.85, thick), 0, 1)
    white = paints.mix(np.array([0.52, 0.56, 0.66]), np.array([1.25, 1.16, 1.02]), lit)
    white = white * (1 + 0.5 * np.exp((toward - 1) / 0.15))[..., None]
    return paints.mix(light, white, 0.92 * cover)
