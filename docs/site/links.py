"""Build hook: pages of the site link to files where they are in the repository.

A page is read in two places, in the repository and on the site. Links are written for the first:
``../launchers/04_compare_models.sh`` or ``../README.md``. The hook adds every linked file to the
site and points the link to it. A link to a missing file stays as it is, and MkDocs reports it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "index.md": "README.md",
    "project/architecture.md": "ARCHITECTURE.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/changelog.md": "CHANGELOG.md",
}
FOLDER = re.compile(r"\[([^\]]+)\]\(([^)\s#:]+)\)")
LINK = re.compile(r'(?<=\]\()[^)\s#:]+(?=[)\s#])|(?<= src=")[^"#:]+(?=")')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root folder and every file that a page links to."""
    for place, source in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    places = _places(files)
    unread = [file for file in files if file.is_documentation_page()]
    while unread:
        page = unread.pop()
        for link in LINK.findall(page.content_string):
            path = _target(page, link)
            if path in places or not path.is_file() or not path.is_relative_to(ROOT):
                continue
            place = f"files/{path.relative_to(ROOT).as_posix()}"
            file = File.generated(
                config, place, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV
            )
            files.append(file)
            places[path] = place
            if file.is_documentation_page():
                unread.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to the files' places on the site; folders have none, so no link."""
    if page.parent is None:  # the navigation on the left would hold this page alone
        page.meta["hide"] = ["navigation"]
    places = _places(files)
    folder = posixpath.dirname(page.file.src_uri)

    def place(match: re.Match[str]) -> str:
        path = _target(page.file, match[0])
        return posixpath.relpath(places[path], folder or ".") if path in places else match[0]

    markdown = FOLDER.sub(lambda m: m[1] if _target(page.file, m[2]).is_dir() else m[0], markdown)
    return LINK.sub(place, markdown)


def _places(files: Files) -> dict[Path, str]:
    return {Path(file.abs_src_path).resolve(): file.src_uri for file in files if file.abs_src_path}


def _target(page: File, link: str) -> Path:
    assert page.abs_src_path is not None
    return (Path(page.abs_src_path).parent / link).resolve()
