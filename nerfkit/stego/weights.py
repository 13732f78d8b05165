"""A second mark, in the numbers of the table themselves: read from a model's file, without rendering.

Every number of the table grows or shrinks by a share of itself, by a coin of the key and the bit that it carries:

    number_i = original_i * (1 + strength * SHARE * r_l * coin_i * word[i mod n])

with r_l the resolution of its level over that of the finest. The mean square of a number's gradient falls as the square
of its level's resolution (on lego by a thousand from 16 to 512), so that each number costs pictures about the same.
Those that never learnt anything stay near zero, and entries of the first mark (`carriers`) carry nothing else.

Who reads has the original, so that the scene itself is no noise (spread spectrum with an informed reader, Cox et al.
1997). A matched filter weighs what a suspect's numbers are off by how far each would have been moved, over the variance
of its level. Numbers that are zero were pruned, and say nothing; nor do entries that grew or shrank by far more than
the others of their level. Whoever has a copy may mix the features of a level, if the first layer of a network undoes
that: so each level is first brought back by the linear map that fits it best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from nerfkit.kernels.hashgrid import GridLayout
from nerfkit.packed import open_run
from nerfkit.render import Model
from nerfkit.stego.carriers import Carriers
from nerfkit.stego.extract import RATE
from nerfkit.stego.keys import Key, Secret, StegoError
from nerfkit.stego.mark import Mark
from nerfkit.stego.message import FORMATS, Letter, Reading, summed
from nerfkit.stego.recipients import Addresses, Named

SHARE = 8.0
"""By which numbers of the finest level move, at a strength of one: where the carriers alone put renders of lego 50.0 dB
from unmarked ones, this mark alone puts them 61.3 dB from these."""
_ALIKE = 4.0
"""How much more than the others of its level an entry may have grown or shrunk, and still be believed."""
_FILE = "field.safetensors"


@dataclass(frozen=True)
class Heard:
    """How well a suspect's table agrees with what would move it up, coin by coin; nothing of a key is in it."""

    carriers: Float[Tensor, " n_carriers"]
    numbers: Float[Tensor, " n_numbers"]


@dataclass(frozen=True)
class Inspected:
    """What a suspect's numbers say."""

    reading: Reading | None
    recipients: list[Named]
    agreeing: dict[str, int]
    """Bits of each mark that agree with the message that was found."""


def swings(
    table: Float[Tensor, "entries features"], layout: GridLayout, carriers: Carriers
) -> Float[Tensor, "entries features"]:
    """How far each number of the original table moves at a strength of one: away from zero, if its sign is +1."""
    far = SHARE * table
    for a, b, resolution in zip(layout.offsets, layout.offsets[1:], layout.resolutions, strict=False):
        far[a:b] *= resolution / layout.resolutions[-1]
    far[carriers.entries] = 0.0
    return far


def coins(secret: Secret, n: int) -> Float[Tensor, " n"]:
    """Of n numbers, +1 or -1."""
    return torch.from_numpy(2.0 * secret.bits("coins of the numbers", n) - 1.0).float()


def moves(
    far: Float[Tensor, "entries features"], letter: Letter | Addresses, content: bytes | str
) -> Float[Tensor, "entries features"]:
    """What a message, or a recipient, adds to the numbers of a table whose swings are ``far``, at a strength of one."""
    n = far.numel()
    signs = coins(letter.secret, n) * torch.from_numpy(np.resize(letter.write(content), n)).float()
    return far * signs.view_as(far).to(far.device)


def compared(
    carriers: Carriers,
    layout: GridLayout,
    original: Float[Tensor, "entries features"],
    suspect: Float[Tensor, "entries features"],
) -> Heard:
    """What the table of a suspect, of the shape of the original, says. No key is needed for that."""
    original, suspect = original.detach(), suspect.to(original.device).float().nan_to_num(0.0, 0.0, 0.0)
    far, off = swings(original, layout, carriers), torch.zeros_like(original)
    for a, b in zip(layout.offsets, layout.offsets[1:], strict=False):
        off[a:b] = _off(original[a:b], suspect[a:b], far[a:b])
    return Heard(carriers.answer(off), (off * far).flatten())


def told(carriers: Carriers, letter: Letter, heard: Heard) -> dict[str, Float[np.ndarray, " n_bits"]]:
    """What each of the two marks says of each bit, in standard deviations of what it would say by chance."""
    n, n_bits = len(heard.numbers), letter.format.code.n
    bits, up = carriers.bits_and_coins(letter.secret, n_bits)
    turned = heard.numbers.cpu() * coins(letter.secret, n)
    return {
        "carriers": summed(heard.carriers * up, bits, n_bits),
        "numbers": summed(turned, torch.arange(n) % n_bits, n_bits),
    }


def inspected(
    model: Model, mark: Mark, key: Key, path: Path, rate: float = RATE, names: Sequence[str] = ()
) -> Inspected:
    """What both marks of a suspect tell together.

    Args:
        model: the original.
        path: see `table_of`.
        rate: chance of a false answer, at most; as `extract.extract`.
        names: all recipients of copies.

    Raises StegoError or RunError where the suspect cannot be read, or cannot be a copy.
    """
    original, suspect = model.field.table, table_of(path)
    if suspect.shape != original.shape:
        n, m = (" by ".join(map(str, one.shape)) for one in (suspect, original))
        raise StegoError(f"{path}: its table is of {n} numbers, that of the run of {m}: it is no copy of it")
    letter = Letter(key.of_scene(mark.terms.scene), FORMATS[mark.terms.n_bits])
    each = told(mark.carriers, letter, compared(mark.carriers, model.field.grid.layout, original, suspect))
    values = each["carriers"] + each["numbers"]
    recipients = Addresses(letter.secret, letter.format).named(values, list(names), rate)
    reading = letter.read(values)
    if reading is None or reading.p_value > rate:
        return Inspected(None, recipients, {})
    agreeing = {name: letter.verify(one, reading.message)[0] for name, one in each.items()}
    return Inspected(reading, recipients, agreeing)


def table_of(path: Path) -> Float[Tensor, "entries features"]:
    """The table of a run, of one of its checkpoints, or of a file of `compress`. Raises RunError or StegoError."""
    if not (path / _FILE).exists():
        return open_run(path).load_checkpoint().field["table"]
    try:
        return safetensors.torch.load((path / _FILE).read_bytes())["table"]
    except (OSError, KeyError, SafetensorError) as error:
        raise StegoError(f"{path / _FILE}: cannot be read as a field ({error})") from None


def _off(
    original: Float[Tensor, "n f"], suspect: Float[Tensor, "n f"], far: Float[Tensor, "n f"]
) -> Float[Tensor, "n f"]:
    """What numbers of a level are off by, over their variance; 0 where a number says nothing."""
    size = original.norm(dim=1)
    grown = suspect.norm(dim=1) / size.clamp_min(1e-30)
    # The median, each entry counting by its square: most may never have learnt anything, and grow by any noise.
    order = grown.argsort()
    share = (size.square() * (grown > 0))[order].cumsum(0)
    usual = grown[order[torch.searchsorted(share, share[-1:] / 2)]]
    said = (suspect != 0) & (grown < _ALIKE * usual)[:, None] & (grown > usual / _ALIKE)[:, None]
    whole = said.all(1)
    there, here = original[whole].double(), suspect[whole].double()
    mixed = torch.linalg.pinv(there.T @ there) @ (there.T @ here)
    # What says nothing may be as large as numbers go: what is left of it must not be infinite times nothing.
    off = (suspect.masked_fill(~said, 0.0) @ torch.linalg.pinv(mixed).float() - original) * said
    weight = far.square() * said
    return off / ((weight * off.square()).sum() / weight.sum().clamp_min(1e-30)).clamp_min(1e-30)
