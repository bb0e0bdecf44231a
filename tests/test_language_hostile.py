"""Files that mean harm, or none at all: each is refused with a place, soon, and does nothing."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from align_dsl.commands import main
from align_dsl.errors import columns, visible
from align_dsl.language.library import shipped_folder
from tests.work import counted

CORPUS = sorted((Path(__file__).parent / "hostile").glob("*.yaml"))
PLACE = re.compile(r"-->\s\S+", re.MULTILINE)  # a file that cannot be read has no lines
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
MOST_LINES = 10_000_000  # of Python; as many values as a file may have take four million

Said = tuple[int, str]
Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line as it is: exit code, and all that was printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["align-dsl", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out + said.err

    return call


def assert_refused(run: Run, path: Path, *options: str) -> str:
    modules = set(sys.modules)
    with counted(MOST_LINES):
        code, said = run("check", *options, path)
    assert code == 2, said
    assert PLACE.search(said) or options, said
    assert "Traceback" not in said
    assert "bug:" not in said
    assert not UNSAFE.search(said), said
    assert len(said) < 100_000
    assert not Path("canary").exists()
    assert not {"antigravity", "dspy", "litellm"} & (set(sys.modules) - modules)
    return said


@pytest.mark.parametrize("path", CORPUS, ids=lambda p: p.stem)
def test_corpus(path: Path, run: Run) -> None:
    shutil.copy(path, path.name)
    assert_refused(run, Path(path.name))


@pytest.mark.parametrize("form", ["json", "github"])
@pytest.mark.parametrize("name", ["terminal_escape_in_key", "bidi", "raw_escape", "c1_control"])
def test_corpus_in_other_forms(name: str, form: str, run: Run) -> None:
    shutil.copy(CORPUS[0].parent / f"{name}.yaml", "x.yaml")
    assert_refused(run, Path("x.yaml"), "--format", form)


GENERATED: dict[str, Callable[[], str]] = {
    "ten_megabytes_in_a_line": lambda: "about: " + "x" * 10_000_000,
    "just_under_the_limit_in_a_line": lambda: "about: " + "x" * 999_000,
    "ten_thousand_open_brackets": lambda: "[" * 10_000,
    "ten_thousand_open_braces": lambda: "{a: " * 10_000,
    "deep_indentation": lambda: "".join(f"{' ' * i}a:\n" for i in range(1200)),
    "deep_dashes": lambda: "- " * 5_000 + "x",
    "deep_complex_keys": lambda: "? " * 5_000 + "x",
    "many_values": lambda: "program: [" + "1," * 200_000 + "1]",
    "many_keys": lambda: "".join(f"k{i}: 1\n" for i in range(60_000)),
    "many_mistakes": lambda: "program: p\n" + "".join(f"k{i}: 1\n" for i in range(2_000)),
    "many_anchors": lambda: "program:\n" + "".join(f"- &a{i} x\n" for i in range(3_000)),
    "many_repeated_keys": lambda: "program: p\n" * 5_000,
    "many_quotes": lambda: "'" * 500_000,
    "many_newlines": lambda: "\n" * 900_000 + "program: p\n",
    "many_spaces": lambda: "program:" + " " * 900_000 + "p: q",
    "wide_bomb": lambda: "program: [" + "[],{}," * 50_000 + "1]",
}


@pytest.mark.parametrize("name", GENERATED)
def test_generated(name: str, run: Run) -> None:
    Path("x.yaml").write_text(GENERATED[name](), encoding="utf-8")
    assert_refused(run, Path("x.yaml"))


def test_no_file_at_all(run: Run) -> None:
    Path("folder.yaml").mkdir()
    os.mkfifo("pipe.yaml")
    Path("loop.yaml").symlink_to("loop.yaml")
    Path("dangling.yaml").symlink_to("nowhere.yaml")
    for name in ("none.yaml", "pipe.yaml", "loop.yaml", "dangling.yaml", "/dev/zero", "a" * 4000):
        assert_refused(run, Path(name))


def test_folder_as_a_file_in_it(run: Run) -> None:
    Path("x/folder.yaml").mkdir(parents=True)
    os.mkfifo("x/pipe.yaml")
    code, said = run("check", "x")
    assert code == 2
    assert "nothing to check" in said


def test_unreadable(run: Run) -> None:
    file = Path("x.yaml")
    file.write_text("version: 1\n")
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("whoever runs this may read everything")
    assert_refused(run, file)


@pytest.mark.parametrize("name", ["mta", "opinions", "preferences"])
@pytest.mark.parametrize("how", ["bom", "crlf", "both"])
def test_valid_programs_stay_valid(name: str, how: str, run: Run) -> None:
    source = shipped_folder() / "programs"
    text = (source / f"{name}.yaml").read_bytes()
    if how != "bom":
        text = text.replace(b"\n", b"\r\n")
    if how != "crlf":
        text = b"\xef\xbb\xbf" + text
    shutil.copytree(source / "data", "data")
    Path("x.yaml").write_bytes(text)
    assert run("check", "x.yaml") == (0, "")


@pytest.mark.parametrize("how", ["bom", "crlf", "both"])
def test_positions_stay_true(how: str, run: Run) -> None:
    text = b"version: 1\nprogram: p\nprogram: q\n"
    if how != "bom":
        text = text.replace(b"\n", b"\r\n")
    if how != "crlf":
        text = b"\xef\xbb\xbf" + text
    Path("x.yaml").write_bytes(text)
    assert "x.yaml:3:1" in assert_refused(run, Path("x.yaml"))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31m", "<U+001B>[31m"),
        ("\x9b31m", "<U+009B>31m"),
        ("a\u202eb", "a<U+202E>b"),
        ("\ud800", "<U+D800>"),
        ("\U000e0041", "<U+E0041>"),
        ("tab\tnew\n", "tab\tnew\n"),
        ("公平 naïve 😀", "公平 naïve 😀"),
    ],
)
def test_visible(raw: str, shown: str) -> None:
    assert visible(raw) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("character", "width"), [("a", 1), ("公", 2), ("\u0301", 0), ("\u202e", 8), ("é", 1)]
)
def test_columns(character: str, width: int) -> None:
    assert columns(character) == width
