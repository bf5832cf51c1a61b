import runpy
from pathlib import Path

from ste_jax.config import RunConfig

ROOT = Path(__file__).parents[1]


def test_the_reference_is_current() -> None:
    """If this fails, run `python scripts/config_reference.py`."""
    script = runpy.run_path(str(ROOT / "scripts" / "config_reference.py"))
    text = (ROOT / "docs" / "CONFIG.md").read_text()
    assert text == script["reference"](), "run `python scripts/config_reference.py`"


def test_the_reference_lists_every_field() -> None:
    text = (ROOT / "docs" / "CONFIG.md").read_text()
    for name in RunConfig.__dataclass_fields__:
        assert f"`{name}`" in text
    assert '| `filters.languages` | tuple[str, ...] | `("en",)` | select |' in text
