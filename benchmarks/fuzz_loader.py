"""Fuzz the loader by coverage, for as long as you like.

    python benchmarks/fuzz_loader.py -max_total_time=60

Needs atheris, which is not among the dependencies: pip install atheris. Anything but a
CompileError that escapes from the loader ends the run, and the input is kept in a crash-* file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris (Linux or macOS, CPython up to 3.13)")

with atheris.instrument_imports(include=["align_dsl"]):
    from align_dsl.errors import CompileError, Findings, render
    from align_dsl.language.attributes import read_attributes
    from align_dsl.language.deciders import read_decider
    from align_dsl.language.library import Library, shipped_folder
    from align_dsl.language.resolve import resolve
    from align_dsl.language.schema import kind_of
    from align_dsl.language.source import decode, parse

LIBRARY = Library([shipped_folder() / "programs", shipped_folder()])


def try_one(raw: bytes) -> None:
    """Load some bytes as `check` would, up to the point where data would be read."""
    found = Findings()
    try:
        source = parse(decode(raw, "fuzz.yaml"), "fuzz.yaml")
        match kind_of(source):
            case "program":
                resolve(source, LIBRARY)
            case "attributes":
                read_attributes(source, found)
            case _:
                read_decider(source, LIBRARY, found)
    except CompileError as error:
        found.add(error)
    said = render(found.diagnostics, found.texts)
    assert "\x1b" not in said


def main() -> None:
    corpus = Path(tempfile.mkdtemp(prefix="align-dsl-corpus-"))
    root = shipped_folder()
    seeds = [*root.glob("programs/*.yaml"), *root.glob("attributes/*.yaml")]
    seeds += [*root.glob("align_dsl/deciders/*.yaml"), *root.glob("tests/errors/*.yaml")]
    for i, path in enumerate(sorted(seeds)):
        (corpus / f"{i:03}.yaml").write_bytes(path.read_bytes())
    atheris.Setup([*sys.argv, str(corpus)], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
