"""The composition, read by the reference implementation of its format."""

import yaml

from tests.deploy import tools

COMPOSITION = tools.ROOT / "compose.yaml"


def test_composition_fits_its_format():
    """The reader of compositions accepts compose.yaml, and resolves all of its services."""
    resolved = yaml.safe_load(tools.run("compose", COMPOSITION))
    own = yaml.safe_load(COMPOSITION.read_text(encoding="utf-8"))
    assert set(resolved["services"]) == set(own["services"])
    assert resolved["services"]["milepost-1"]["read_only"] is True


def test_wrong_compositions_are_refused(tmp_path):
    """An unknown member of a service is refused."""
    text = COMPOSITION.read_text(encoding="utf-8").replace("  read_only: true", "  readonly: true")
    file = tmp_path / "compose.yaml"
    file.write_text(text, encoding="utf-8")
    code, report = tools.attempt("compose", file)
    assert code != 0
    assert "readonly" in report
