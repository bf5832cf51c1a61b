"""The files that a path names: one file, or the parts of a data set in a folder."""

import contextlib
import hashlib
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from ste_jax.data.decompression import check_table, decompressed
from ste_jax.errors import SteError

TEXT_ENDINGS = (".jsonl", ".json-lines", ".json", ".csv", ".tsv")
TABLE_ENDINGS = (".parquet", ".arrow")
ENDINGS = (*TEXT_ENDINGS, *TABLE_ENDINGS)
LINES_ENDING = ".txt"
_COMPRESSED = ".gz"
_SPLITS = {name: name for name in ("train", "test", "dev", "eval", "heldout", "raw", "filtered")}
_SPLITS |= {"val": "validation", "holdout": "heldout"}
_SPLIT = re.compile(rf"({'|'.join(_SPLITS)})(?:ing|idation|id|uation|elopment|el)?")
# A word for a split, such as trainset, training and val2, or for several, such as trainval.
_SPLIT_WORD = re.compile(rf"((?:{_SPLIT.pattern})+)(?:s|sets?|splits?|data)?\d*")
_HELD_OUT = re.compile(r"(?<![a-z])(held|hold)[^a-z0-9]+out(?![a-z])")
# Files of the `datasets` library that describe a data set.
_DESCRIPTIONS = frozenset(("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"))
_STATE, _DICT = "state.json", "dataset_dict.json"
# The number of a part and that of all parts, in a name such as train-00000-of-00002.parquet.
_SHARD = re.compile(r"(.*?[-_.])(\d+)([-_.]of[-_.])(\d+)(?!\d)")
# How files of other kinds begin, as browsers and tools save them under the name of a text file.
_OTHER_KINDS = (
    (
        (b"PK\3\4", b"PK\5\6"),
        "a zip archive or a table of a spreadsheet program; extract it, or save it as CSV",
    ),
    ((b"\x1f\x8b",), "compressed by gzip; add .gz to its name"),
    ((b"PAR1",), "a Parquet file; rename it to .parquet"),
    ((b"%PDF",), "a PDF file; save the data as text"),
    ((b"<!doctype html", b"<html", b"<?xml"), "an HTML or XML page, not the data; download the file again"),
)
_UTF32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_NO_FILE = "a pipe, socket or device; write its content to a file first"
TOO_LARGE = "does not fit in memory; write it in parts"
_BUCKETS = ("gs", "s3")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def ending(name: str) -> str:
    """Returns the ending that names the format of a file: ".jsonl" for x.jsonl and for x.jsonl.gz."""
    name = name.lower()
    if name.endswith(_COMPRESSED):
        inner = epath.Path(name[: -len(_COMPRESSED)]).suffix
        return inner if inner in (*TEXT_ENDINGS, LINES_ENDING) else _COMPRESSED
    return epath.Path(name).suffix


def stem(path: str) -> str:
    """Returns the name of a file without its folder and its endings."""
    name = epath.Path(path).name
    name = name[: -len(_COMPRESSED)] if name.lower().endswith(_COMPRESSED) else name
    return epath.Path(name).stem


def is_hidden(relative: str) -> bool:
    """Returns True for files that editors and systems put next to data: .ipynb_checkpoints, ._x, __MACOSX."""
    return any(
        part.startswith((".", "~$")) or part == "__MACOSX" or ".ipynb_checkpoints" in part
        for part in relative.split("/")
    )


def path_parts(relative: str) -> list[str]:
    """Returns the words of the name of a file, then those of its folders, the nearest first.

    Words stand between underscores, in lower case, and those for a split in one form: "partial-train/X 1.csv"
    gives "_x_1_csv_" and "_partial_train_".
    """
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", relative).lower().split("/")
    parts = [_HELD_OUT.sub(r"\1out", part) for part in parts]
    return ["_" + "_".join(map(_word, re.split(r"[^a-z0-9]+", part))) + "_" for part in parts[::-1]]


def says(part: str, name: str) -> bool:
    """Returns True if a part of a path (see `path_parts`) has the words of a name, such as gpt4_pair."""
    return f"_{name.strip('_')}_" in part


def splits_in(part: str) -> str:
    """Returns the usual names of splits in a part of a path (see `path_parts`), sorted; "" without any."""
    return ", ".join(sorted({*_SPLITS.values()}.intersection(part.split("_"))))


def data_files(path: str, endings: Sequence[str] = ENDINGS) -> list[epath.Path]:
    """Returns the files of a data set, in order: the file itself, or the parts in a folder.

    Hidden files are left out. A folder that `datasets` saved holds the files that its state lists.

    Args:
      path: a file or a folder.
      endings: endings that the files may have; text files may also be compressed (.gz).

    Raises:
      SteError: "file_not_found"; "file_unreadable"; or "data_invalid" for a file of another type, or a folder
        without data, with files of several types or splits, or with a file twice.
    """
    root = data_path(path)
    with _reading(path):
        if root.is_dir():
            return _parts(path, root, endings)
        check_file(path, root, endings)
    return [root]


def data_path(path: str) -> epath.Path:
    """Returns the path that a user gave for data: a local one, or that of a bucket.

    Raises:
      SteError: "file_not_found" if it is empty or another URL, "file_unreadable" if a package for buckets of
        its kind is missing.
    """
    scheme, mark, _ = path.partition("://")
    if not path.strip() or (mark and scheme not in _BUCKETS):
        what = "a URL; download the file, and give its path" if mark else "the path is empty"
        raise SteError("file_not_found", f"{path}: {what}")
    root = epath.Path(path).expanduser()
    try:
        root.exists()
    except ImportError as error:
        raise SteError("file_unreadable", f"{path}: {error}") from error
    except OSError:
        pass  # the reader says why
    return root


def check_file(path: str, file: epath.Path, endings: Sequence[str]) -> None:
    """Checks a path that is no folder.

    Args:
      path: the path as errors name it.
      file: the path.
      endings: endings that the file may have.

    Raises:
      SteError: "file_not_found", or "data_invalid" for a file of another type.
    """
    if not file.exists():
        raise SteError("file_not_found", f"{path}: no such file or folder")
    if _is_special(file):
        raise SteError("data_invalid", f"{path}: {_NO_FILE}")
    if ending(file.name) not in endings:
        raise SteError(
            "data_invalid",
            f"{path}: unknown file type; expected a folder or a file ending in {', '.join(endings)} "
            "(text also with .gz)",
        )


def files_in(root: epath.Path, endings: Sequence[str]) -> list[str]:
    """Returns the relative paths of the data files below a folder, sorted; hidden files are left out."""
    with _reading(str(root)):
        names = sorted(_walk(root))
    return [n for n in names if ending(n) in endings and n.rsplit("/", 1)[-1] not in _DESCRIPTIONS]


def content_hash(files: Sequence[epath.Path]) -> str:
    """Returns the sha256 of a file, or of the hashes of several files."""
    digests = [hashlib.sha256(file.read_bytes()) for file in files]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(d.digest() for d in digests))
    ).hexdigest()


def refuse_copies(files: Iterable[tuple[str, bytes]]) -> None:
    """Raises SteError "data_invalid" if two files have the same content; each is a name and its content."""
    seen: dict[bytes, str] = {}
    for name, content in files:
        first = seen.setdefault(hashlib.sha256(content).digest(), name)
        if first != name:
            raise SteError("data_invalid", f"{name}: a copy of {first}; remove one of them")


def read_content(file: epath.Path, name: str) -> bytes:
    """Returns the content of a file, decompressed if it ends in .gz.

    Raises:
      SteError: "file_unreadable", or "data_invalid" for a damaged or stand-in file, or one that does not fit
        in memory or holds far more than its size.
    """
    try:
        content = file.read_bytes()
        if file.name.lower().endswith(_COMPRESSED):
            content = _decompressed(content, name)
        elif ending(file.name) in TABLE_ENDINGS:
            check_table(content, name, ending(file.name))
    except OSError as error:
        raise SteError("file_unreadable", f"{name}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise SteError("data_invalid", f"{name}: {TOO_LARGE}") from error
    if content.startswith(_LFS_POINTER):
        raise SteError("data_invalid", f"{name}: a Git LFS pointer, not the file; run `git lfs pull`")
    return content


def _decompressed(content: bytes, name: str) -> bytes:
    try:
        return decompressed(content, name)
    except (OSError, EOFError, zlib.error) as error:
        raise SteError("data_invalid", f"{name}: not a readable gzip file ({error})") from error


def decoded(content: bytes, name: str) -> str:
    """Returns UTF-8 text without its byte order mark.

    Raises:
      SteError: "data_invalid" with the kind of file, if it is no text; or with the line, and the encoding if
        its byte order mark or its zeros tell it.
    """
    beginning = content.removeprefix(b"\xef\xbb\xbf")[:512].lstrip().lower()
    for marks, kind in _OTHER_KINDS:
        if content.startswith(marks) or beginning.startswith(marks):
            raise SteError("data_invalid", f"{name}: {kind}")
    if content[257:262] == b"ustar":
        raise SteError("data_invalid", f"{name}: a tar archive; extract it")
    if encoding := _wide_encoding(content):
        raise SteError(
            "data_invalid", f"{name}, line 1: {encoding} text, not UTF-8 text; save the file as UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SteError(
            "data_invalid", f"{name}, line {line}: not UTF-8 text; save the file as UTF-8"
        ) from error


def _wide_encoding(content: bytes) -> str:
    """Returns the encoding of text with two or four bytes a character; "" for other text."""
    start = content[:4]
    # The text begins with a character of ASCII, as CSV and JSON do.
    if start in _UTF32 or (start.count(0) == 3 and (start[:1] != b"\0" or start[3:] not in (b"", b"\0"))):
        return "UTF-32"
    return "UTF-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start else ""


def _parts(path: str, root: epath.Path, endings: Sequence[str]) -> list[epath.Path]:
    """Returns the files of a folder."""
    if (root / _DICT).is_file():
        splits = ", ".join(child.name for child in sorted(root.iterdir()) if child.is_dir())
        raise SteError("data_invalid", f"{path}: holds the splits {splits}; give the folder of one of them")
    if (root / _STATE).is_file():
        return _saved(path, root, endings)
    names = files_in(root, endings)
    if not names:
        raise SteError(
            "data_invalid",
            f"{path}: a folder without data files; expected files ending in {', '.join(endings)}",
        )
    for what, found in (
        ("types", {ending(name) for name in names}),
        ("splits", _splits_of(names)),
        ("folders", {name.rpartition("/")[0] or "." for name in names}),
    ):
        if len(found) > 1:
            raise SteError(
                "data_invalid",
                f"{path}: a folder with files of the {what} {', '.join(sorted(found))}; give one file, or a "
                "folder with one of them",
            )
    refuse_missing_shards(path, names)
    if len(names) > 1:
        refuse_copies((f"{path}/{name}", _compared(root / name, f"{path}/{name}")) for name in names)
    return [root / name for name in names]


def _compared(file: epath.Path, name: str) -> bytes:
    """Returns the content of a part without its compression, byte order mark and kind of line ends."""
    content = read_content(file, name)
    if ending(file.name) in TABLE_ENDINGS:
        return content
    return content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").rstrip(b"\n")


def _splits_of(names: Sequence[str]) -> set[str]:
    """Returns the splits of files. One that names none is apart where another does."""
    found = {_split(name): name for name in names}
    return {split or f"none ({name})" for split, name in found.items()}


def _word(word: str) -> str:
    """Returns the splits that a word names, with underscores between them, or the word."""
    match = _SPLIT_WORD.fullmatch(word)
    return "_".join(_SPLITS[name] for name in _SPLIT.findall(match[1])) if match else word


def _split(relative: str) -> str:
    """Returns the words of the nearest part of a path that names a split, without numbers; "" if none does.

    The words of NAME-00000-of-00001, or NAME-00000-of-00001-HASH, are a split, whatever they are.
    """
    for part in path_parts(relative[: -len(epath.Path(relative).suffix)]):
        name, *shard = re.split(r"_\d+_of_\d+_", part, maxsplit=1)
        words = [word for word in name.strip("_").split("_") if not word.isdecimal()]
        if shard or splits_in(part):
            return "_".join(word.rstrip("0123456789") for word in words)
    return ""


def other_parts(path: str) -> int:
    """Returns how many other parts the data set has of which a file name gives the number; 0 for a folder."""
    file = epath.Path(path).expanduser()
    match = None if file.is_dir() else _SHARD.match(file.name)
    return int(match[4]) - 1 if match else 0


def family(name: str) -> str:
    """Returns what the names of all parts of one data set have in common: names without their numbers."""
    if match := _SHARD.match(name):
        return f"{match[1]}*{match[3]}{match[4]}"
    return re.sub(r"(?<![A-Za-z0-9])\d+", "*", name)


def refuse_missing_shards(path: str, names: Iterable[str]):
    """Refuses files whose names count the parts of a data set, from 0 or from 1, if a part is missing."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for match in filter(None, map(_SHARD.match, names)):
        found.setdefault((match[1], match[3], match[4]), set()).add(int(match[2]))
    for (name, of, total), numbers in found.items():
        first = 1 if int(total) in numbers else 0
        absent = next((n for n in range(first, first + int(total)) if n not in numbers), None)
        if absent is not None:
            raise SteError(
                "data_invalid",
                f"{path}: {len(numbers)} of {int(total)} parts of the data set are there, without "
                f"{name}{absent:0{len(total)}}{of}{total}; add the missing parts, or give one file",
            )


def _saved(path: str, root: epath.Path, endings: Sequence[str]) -> list[epath.Path]:
    """Returns the files that the state of a folder of `Dataset.save_to_disk` lists."""
    try:
        state = json.loads((root / _STATE).read_bytes())
        names = [entry["filename"] for entry in state["_data_files"]]
        # Files of this folder: the state may be somebody else's.
        if any(epath.Path(name).name != name or ending(name) not in endings for name in names):
            raise ValueError(names)
        files = [root / name for name in names]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise SteError(
            "data_invalid", f"{path}: {_STATE} lists no files of a data set; save the data set again"
        ) from error
    if state.get("_indices_data_files"):
        raise SteError(
            "data_invalid", f"{path}: a selection of a data set; save it with flatten_indices() applied"
        )
    for file in files:
        if not file.is_file():
            raise SteError("file_not_found", f"{path}: {file.name} is missing, though {_STATE} lists it")
    return files


def _walk(root: epath.Path) -> Iterator[str]:
    """Yields the relative paths of the files below a folder; hidden ones are left out.

    Each folder is entered once, under its own path rather than under a link to it, so that links in circles
    come to an end.
    """
    folders, links, seen = deque([(root, "")]), deque(), set()
    while folders or links:
        folder, prefix = (folders or links).popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        for child in sorted(folder.iterdir()):
            if is_hidden(prefix + child.name):
                continue
            if child.is_dir():
                (links if os.path.islink(child) else folders).append((child, f"{prefix}{child.name}/"))
            elif _is_special(child):
                raise SteError("data_invalid", f"{child}: {_NO_FILE}")
            elif child.is_file():
                yield prefix + child.name
            elif not os.path.islink(child):
                child.stat()  # says why it is neither, if the folder lists names that may not be looked up
            elif ending(child.name) in (*ENDINGS, LINES_ENDING):
                raise SteError("file_not_found", f"{child}: a link to a file that is not there")


def _is_special(file: epath.Path) -> bool:
    """Returns True for a local pipe, socket or device, which epath takes for files."""
    return os.path.exists(file) and not os.path.isfile(file) and not os.path.isdir(file)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns an error of the system into one that names the file or folder."""
    try:
        yield
    except OSError as error:
        raise SteError(
            "file_unreadable", f"{error.filename or path}: cannot be read ({error.strerror or error})"
        ) from error
