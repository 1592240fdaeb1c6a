"""Damages sources at random and reads what is left: it may be a network or a named error, and nothing else.

An audit hook watches that a reader opens nothing for writing, starts no process, connects to nothing and removes
nothing; an alarm that it comes to an end.
"""

import io
import os
import random
import re
import signal
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weightgen.errors import WeightgenError
from weightgen.formats import format_of
from weightgen.formats.format import read_as

SECONDS = 20
"""A reader that takes longer for a file of a few kilobytes hangs."""

FORBIDDEN = re.compile(
    r"os\.(system|exec|posix_spawn|spawn|fork|forkpty|mkdir|remove|rename|rmdir|link|symlink|chmod|chown|truncate|kill)"
    r"|subprocess\.Popen|socket\.(connect|bind|sendto|getaddrinfo)|shutil\..*|pickle\.find_class|ctypes\.dlopen"
)


class Hang(BaseException):
    """Raised by the alarm; no reader may catch it."""


class Forbidden(BaseException):
    """Raised by the audit hook; no reader may catch it."""


_watching: list[bool] = []


def _audit(event: str, arguments: tuple) -> None:
    if not _watching:
        return
    writes = event == "open" and isinstance(arguments[1], str) and any(sign in arguments[1] for sign in "wax+")
    if writes or FORBIDDEN.fullmatch(event):
        _watching.clear()
        raise Forbidden(f"{event} {arguments!r:.200}")


@contextmanager
def watched() -> Iterator[None]:
    """Raises Hang or Forbidden if the block does what no reader may do."""
    if not getattr(sys, "_fuzz_hook", False):
        sys.addaudithook(_audit)
        sys._fuzz_hook = True  # type: ignore[attr-defined]

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    _watching.append(True)
    try:
        yield
    finally:
        _watching.clear()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path) -> str:
    """What becomes of a source: `network`, `error`, or `unknown` for one that no reader takes for its own."""
    with watched():
        name = format_of(path)
        if name is None:
            return "unknown"
        try:
            for network in read_as(name, path):
                for each in network.checkpoint.shapes:
                    network.checkpoint.read(each)
                assert network.checkpoint.parameters >= 0
        except WeightgenError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            return "error"
    return "network"


NUMBERS = (b"0", b"-1", b"1e308", b"999999999999", b"18446744073709551616", b"NaN", b"[]", b"null", b"9" * 400)


def mutate(content: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """Content with one kind of damage."""
    kind = chance.randrange(9)
    if not content or kind == 0:
        return content[: chance.randrange(len(content) + 1)]
    data = bytearray(content)
    # Headers are what readers believe; most damage is done there.
    end = min(len(data), 512) if chance.random() < 0.5 else len(data)
    place = chance.randrange(end)
    length = chance.choice((1, 2, 4, 8, 64))
    if kind in (1, 2):
        for _ in range(chance.choice((1, 2, 5, 30))):
            data[chance.randrange(end)] ^= 1 << chance.randrange(8)
    elif kind == 3:
        data[place : place + length] = bytes([chance.choice((0, 255, 127, 128))]) * length
    elif kind == 4:
        del data[place : place + length]
    elif kind == 5:
        data[place:place] = data[place : place + length] * chance.choice((1, 2, 50))
    elif kind == 6 and other:
        cut = chance.randrange(len(other))
        data[place:] = other[cut:]
    elif kind == 7:
        found = list(re.finditer(rb"\d+", bytes(data)))
        if found:
            one = chance.choice(found)
            data[one.start() : one.end()] = chance.choice(NUMBERS)
    else:
        data[place : place + 8] = chance.choice((2**31, 2**40, 2**63 - 1, 2**64 - 1, 1)).to_bytes(8, "little")
    return bytes(data)


def mutate_member(content: bytes, chance: random.Random) -> bytes:
    """A zip archive in which one member is damaged, or renamed, and all checksums are right."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(made, "w") as other:
        names = archive.namelist()
        chosen = chance.choice(names)
        for name in names:
            member = archive.read(name)
            renamed = name
            if name == chosen:
                if chance.random() < 0.1:
                    renamed = chance.choice((f"../{name}", "/etc/x", name.upper(), "data.pkl", chance.choice(names)))
                else:
                    member = mutate_member(member, chance) if member[:2] == b"PK" else mutate(member, chance)
            packed = zipfile.ZIP_DEFLATED if chance.random() < 0.05 else zipfile.ZIP_STORED
            other.writestr(renamed, member, compress_type=packed)
    return made.getvalue()


def damaged(path: Path, originals: dict[Path, bytes], chance: random.Random) -> None:
    """Damages one of the files of a source in place; `originals` holds what they were."""
    for file, content in originals.items():
        file.write_bytes(content)
    file = chance.choice(sorted(originals))
    content = originals[file]
    if content[:2] == b"PK" and chance.random() < 0.6:
        file.write_bytes(mutate_member(content, chance))
        return
    others = [each for each in originals.values() if each]
    file.write_bytes(mutate(content, chance, chance.choice(others)))


def files_of(path: Path) -> dict[Path, bytes]:
    """The files of a source and what lies beside it, with their content."""
    root = path if path.is_dir() else path.parent
    return {Path(folder, name): Path(folder, name).read_bytes() for folder, _, names in os.walk(root) for name in names}
