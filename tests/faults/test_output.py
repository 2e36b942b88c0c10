"""What is printed when names are odd, or nobody reads."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from castnet.errors import UserError, fail, or_exit, printable, willing, written
from castnet.files import hold, replacing
from castnet.line.page.looks import plain
from castnet.pages import templates
from tests.conftest import PATIENCE, start


def test_different_names_are_printed_as_different_lines() -> None:
    names = ["a b", "a  b", "a\nb", "a\tb", "a\u2028b", "a\x1b[2Jb"]
    printed = [printable(name) for name in names]
    assert len({*printed}) == len(names)
    assert all(line.isprintable() for line in printed)


def test_a_line_that_says_what_to_mend_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(UserError("no  such\u202e.png: no such file (said in\n  two lines)"))
    assert capsys.readouterr().err == "error: no  such\\u202e.png: no such file (said in two lines)\n"


def test_what_is_printed_where_the_shell_closed_the_output_leads_nowhere() -> None:
    with willing(None) as nowhere:
        assert nowhere.write("said") == 4


PLAIN = ("parts", "/data/a-b_c.d", "./a", "007", "none")
ODD = ("a b (1)", 'a"b', "a'b", "$HOME", "a,b", "[x]", "ü", "interval(0,1)", "~", "a\\", '\\"', "", " a")
NUMBERS = ("0", "20261201", "1.5", "-1", "1e3", ".5", "true", "Null", "nan", "inf")


@pytest.mark.parametrize("text", [*PLAIN, *ODD, *NUMBERS])
def test_a_setting_that_is_named_can_be_pasted(text: str) -> None:
    (word,) = shlex.split(written("data.root", text))
    (pasted,) = OverridesParser.create().parse_overrides([word])
    value = pasted.value()
    assert (value.text if isinstance(value, QuotedString) else value) == text
    assert isinstance(value, QuotedString | str)


def test_pages_show_different_names_as_different_text_and_turn_nothing_round() -> None:
    names = ["a b", "a\nb", "a\u2028b", "brok\u202egnp.png", "<b>&", "plain"]
    page = templates("castnet.report").from_string("{% for name in names %}{{ name }}|{% endfor %}").render(names=names)
    assert page == r"a b|a\nb|a\u2028b|brok\u202egnp.png|&lt;b&gt;&amp;|plain|"
    assert plain("brok\u202egnp.png") == r"brok\\u202egnp\.png"


def test_who_reads_no_further_is_told_no_verdict(castings: Path, model: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    out = tmp_path / "page.html"
    with start("compare", model, model, castings / "test", "-o", out, stdout=writer, stderr=subprocess.DEVNULL) as ran:
        os.close(writer)
        assert ran.wait(PATIENCE) == 2  # where 1 would be a verdict


def test_who_is_refused_a_folder_leaves_it_to_who_holds_it(tmp_path: Path) -> None:
    with hold(tmp_path / "new"):
        with pytest.raises(UserError, match="another run is at work there"), hold(tmp_path / "new"):
            pass
        (tmp_path / "new").rename(tmp_path / "done")
        (tmp_path / "new").mkdir()
    assert (tmp_path / "new").is_dir(), "it is somebody else's by now"
    with hold(tmp_path / "done"):
        pass
    assert not (tmp_path / "done").exists()


def test_a_callback_that_fails_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: Exception) -> None:
        raise error

    for error, code, said in ((UserError("a b"), 2, "error: a b\n"), (KeyError("a"), 70, "Traceback")):
        with pytest.raises(SystemExit) as ended:
            or_exit(UserError)(raising)(error)
        assert ended.value.code == code
        assert capsys.readouterr().err.startswith(said)


def test_what_two_processes_write_under_one_name_does_not_mix(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    with replacing(out) as partial:
        assert str(os.getpid()) in partial.name
        partial.write_text("mine")
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert out.read_text() == "mine"
