import pytest

from weightgen import shelf as module
from weightgen.errors import UnknownNameError
from weightgen.shelf import shelf, shelf_names


@pytest.fixture(params=["checkout", "installed"])
def starter(request, tmp_path, monkeypatch):
    """A package with one zoo on its shelf, once in a checkout and once as it is installed."""
    package = tmp_path / "weightgen"
    folder = tmp_path if request.param == "checkout" else package / "shelves"
    (folder / "zoo" / "starter").mkdir(parents=True)
    (folder / "zoo" / "README.md").touch()
    (folder / "zoo" / ".hidden").mkdir()
    if request.param == "checkout":
        (tmp_path / "pyproject.toml").touch()
    package.mkdir(exist_ok=True)
    monkeypatch.setattr(module, "__file__", str(package / "shelf.py"))
    return folder / "zoo" / "starter"


def test_a_name_is_found_on_the_shelf(starter):
    assert shelf("zoo", "starter") == starter
    assert shelf_names("zoo") == ["starter"]


def test_a_folder_that_exists_is_itself(starter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starter").mkdir(exist_ok=True)
    assert shelf("zoo", tmp_path / "starter") == tmp_path / "starter"
    assert str(shelf("zoo", "starter")) == "starter"


@pytest.mark.parametrize("name", ["startr", "README.md", ".hidden", "starter/x", "/nowhere"])
def test_an_unknown_name_lists_the_shelf(starter, name):
    with pytest.raises(UnknownNameError, match=r"unknown zoo .*starter"):
        shelf("zoo", name)


def test_an_empty_shelf_is_no_crash(starter):
    with pytest.raises(UnknownNameError, match="unknown generator .*one of: none"):
        shelf("checkpoints", "base")
