"""What `embed --hide` and `extract --hidden` do; nothing heavy is imported before one needs it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerfkit.terminal import finished, print_table, say

if TYPE_CHECKING:
    from nerfkit.signing_flags import Embed, Extract
    from nerfkit.stego.keys import Key


def hide(arguments: Embed, key: Key, file: Path, out: Path) -> int:
    """Write a copy of a run whose renders show a picture or a file to whoever has the key."""
    from nerfkit.assess import backdrop, scene_of
    from nerfkit.run import Run, check_free
    from nerfkit.stego.cost import against_photographs
    from nerfkit.stego.embed import DEFAULT, markable, write_copy
    from nerfkit.stego.hidden import N_CHECKED, put, target_of
    from nerfkit.stego.hide import Plan
    from nerfkit.stego.mark import scene_digest
    from nerfkit.stego.payload import Payload
    from nerfkit.stego.record import FILE, Content, note, read_record

    payload, content = Payload.of(file), Content(hidden=hashlib.sha256(file.read_bytes()).hexdigest())
    run = Run.open(arguments.run)
    check_free(out)
    record = run.path / FILE
    if record.exists():  # what cannot be noted is not made
        read_record(record)
    model, scene = markable(run), scene_of(run, arguments.scene)
    original, target = scene_digest(model), arguments.target_psnr
    if target is None:
        target = target_of(arguments.profile or DEFAULT, against_photographs(model, scene, backdrop(scene)))
    cost = finished(put(run, model, scene, payload, key, target, Plan()), "hiding")
    field = {name: tensor.detach().cpu() for name, tensor in model.field.state_dict().items()}
    lines = note(record, key, original, content)  # first: a line too many does no harm, a copy that none knows does
    write_copy(run, field, out, ["nerfkit", "embed", str(arguments.run)])
    lost = "" if cost.photo_loss is None else f"; against the photographs {cost.photo_loss:.2f} dB lost"
    rows = {
        "hidden": payload.name,
        "marked": f"{cost.psnr:.1f} dB from unmarked, the worst view {cost.worst_psnr:.1f} dB{lost}",
        "read back": f"from {cost.n_read} of {N_CHECKED} views alone, drawn with an SSIM of {cost.likeness:.3f}",
        "recorded": f"line {len(lines)} of {record}, {lines[-1].hash}",
    }
    print_table(rows.items())
    say(f"give {out} away, and keep {run.path} and the key")
    print(out)
    return 0


def show(arguments: Extract, key: Key, out: Path) -> bool:
    """Write what renders show to ``out``, and say whether there is anything."""
    from nerfkit.aside import file_aside
    from nerfkit.render import load_model
    from nerfkit.run import Run
    from nerfkit.stego.decoder import N_SIGNS, stretched
    from nerfkit.stego.hidden import kept
    from nerfkit.stego.keys import StegoError
    from nerfkit.stego.pictures import pictures_of

    run = Run.open(arguments.run)
    each = kept(run, load_model(run), key)
    if not each:
        raise StegoError(f"{run.path}: keeps nothing that this key has hidden; nerfkit embed --hide does")
    small = [(name, stretched(picture)) for name, picture in pictures_of(list(arguments.pictures))]
    names, pictures = zip(*small, strict=True)
    keeping, found = max(((one, one.read(list(pictures))) for one in each), key=lambda pair: pair[1].sure)
    if found.found:
        contents = keeping.payload.contents(found.drawn)
        with file_aside(out) as aside:
            aside.write_bytes(contents)
    record: dict[str, Any] = {
        "found": found.found,
        "hidden": keeping.payload.name if found.found else None,
        "out": str(out) if found.found else None,
        "agreeing": found.agreeing,
        "n_signs": N_SIGNS,
        "pictures": [{"name": name, "agreeing": n} for name, n in zip(names, found.each, strict=True)],
    }
    if arguments.json:
        print(json.dumps(record, indent=1))
    elif found.found:
        print(out)
        say(f"{keeping.payload.name}; {found.agreeing} of {N_SIGNS} signs agree, in {len(names)} pictures together")
    else:
        print("absent")
        say(f"{found.agreeing} of {N_SIGNS} signs agree, in {len(names)} pictures together")
    return found.found
