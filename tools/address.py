"""Re-point every file that carries the repository's address, or find those that disagree.

    python tools/address.py https://github.com/you/name                    the book moves
    python tools/address.py https://github.com/you/name --version v0.2.0   and becomes a version
    python tools/address.py --version v0.2.0                               a version alone
    python tools/address.py --check [the same]                             change nothing, report

The address and the version stand in `_config.yml`; what other files say must agree with it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWNER_AND_NAME = r"[\w.-]+/[\w.-]*\w"
VERSION = r"v\d+\.\d+\.\d+(?:[\w.]*\w)?"


@dataclass(frozen=True)
class Address:
    """Where the repository lives (owner and name) and which version of it is published."""

    place: str
    version: str

    @property
    def pages(self) -> str:
        owner, name = self.place.split("/")
        return f"https://{owner.lower()}.github.io/{name}"

    @classmethod
    def of(cls, root: Path) -> Address:
        config = (root / "_config.yml").read_text(encoding="utf-8")
        place = re.search(rf"^  url: https://github\.com/({OWNER_AND_NAME})$", config, re.M)
        version = re.search(rf"^  branch: ({VERSION})$", config, re.M)
        if not place or not version:
            raise SystemExit("_config.yml names no repository url, or no version as its branch")
        return cls(place.group(1), version.group(1))


# Each form in which a file carries the version, as (before, version, after).
VERSION_FORMS = (
    (r"(git\+https://github\.com/{place}@)", VERSION, r"()"),
    (r"(github\.com/{place}/(?:blob|tree|raw)/)", VERSION, r"()"),
    (r"(colab\.research\.google\.com/github/{place}/blob/)", VERSION, r"()"),
    (r"(?m)(^  branch: )", VERSION, r"($)"),
    (r'(?m)(^__version__ = ")', VERSION[1:], r'("$)'),
    (r'(?m)(^version: "?)', VERSION[1:], r'("?$)'),
)


def files(root: Path) -> Iterator[tuple[Path, str]]:
    """Every text file that git tracks or would track, with its text."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in sorted(filter(None, listed.split("\0"))):
        path = root / name
        if path.suffix in (".woff", ".png", ".ico") or "mathjax" in path.parts:
            continue
        if path.is_file():
            yield path, path.read_text(encoding="utf-8")


def repointed(text: str, old: Address, new: Address) -> str:
    """The text of one file, with the new address and version."""
    text = re.sub(rf"(?<![\w.-]){re.escape(old.place)}(?![\w-])", new.place, text)
    text = text.replace(old.pages, new.pages)
    for before, version, after in VERSION_FORMS:
        pattern = before.format(place=re.escape(new.place)) + version + after
        number = new.version if version.startswith("v") else new.version[1:]
        text = re.sub(pattern, rf"\g<1>{number}\g<2>", text)
    return text


def disagreements(root: Path) -> list[str]:
    """Each place where a file names another address or version than `_config.yml` does."""
    address = Address.of(root)
    name = re.escape(address.place.split("/")[1])
    forms = [
        # A repository of our name, or one that a notebook installs or opens, is ours.
        (rf"github\.com/([\w.-]+/(?:{name}|minflow-book))(?![\w-])", address.place),
        (rf"git\+https://github\.com/({OWNER_AND_NAME})", address.place),
        (rf"colab\.research\.google\.com/github/({OWNER_AND_NAME})", address.place),
        (rf"https://([\w-]+\.github\.io/(?:{name}|minflow-book))", address.pages[8:]),
    ]
    for before, version, after in VERSION_FORMS:
        number = address.version if version.startswith("v") else address.version[1:]
        uncaught = before.format(place=re.escape(address.place)).replace("(?m)(", "(?m)(?:", 1)
        uncaught = re.sub(r"^\((?!\?)", "(?:", uncaught)
        forms.append((f"{uncaught}({version}){after}", number))
    found = []
    for path, text in files(root):
        for pattern, right in forms:
            for match in re.finditer(pattern, text):
                if match.group(1) != right:
                    line = text.count("\n", 0, match.start()) + 1
                    found.append(f"{path.relative_to(root)}:{line}: {match.group(1)}, not {right}")
    return found


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address", nargs="?", help="https://github.com/owner/name")
    parser.add_argument("--version", help="the tag that the book is published under, as v0.2.0")
    parser.add_argument("--check", action="store_true", help="change nothing, report")
    options = parser.parse_args(arguments)
    old = Address.of(root)
    place, version = old.place, options.version or old.version
    if options.address:
        match = re.fullmatch(rf"https://github\.com/({OWNER_AND_NAME}?)/?", options.address)
        if not match:
            parser.error(f"not of the form https://github.com/owner/name: {options.address}")
        place = match.group(1).removesuffix(".git")
    if not re.fullmatch(VERSION, version):
        parser.error(f"not of the form v0.2.0: {version}")
    new = Address(place, version)
    if options.check:
        found = disagreements(root)
        if new != old:
            found.append(f"_config.yml says {old.place} {old.version}, not {place} {version}")
        print("\n".join(found) or f"every file says {place} {version}")
        return int(bool(found))
    for path, text in files(root):
        changed = repointed(text, old, new)
        if changed != text:
            path.write_text(changed, encoding="utf-8")
            print(path.relative_to(root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
