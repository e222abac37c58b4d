"""import-linter contracts of our own: who may import a package, and what a package may read of another."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyIn(Contract):
    """Only modules that match one of `importers` import `package`.

    `importers` are shell patterns over whole module names, and a package stands for what is in it:
    `serving.engine`, `serving.commands.stack`, `serving.*_ray`. import-linter's own `protected`
    contract fails where nobody imports the package yet, and has no patterns for parts of names.
    """

    type_name = "only_in"

    package = fields.StringField()
    importers = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        package = str(self.package)
        found = []
        if package in graph.modules:
            for importer in sorted(graph.find_modules_that_directly_import(package)):
                if not self.allows(importer):
                    found += graph.get_import_details(importer=importer, imported=package)
        return ContractCheck(kept=not found, metadata={"found": found})

    def allows(self, importer: str) -> bool:
        return _matches(importer, self.importers)

    def render_broken_contract(self, check: ContractCheck) -> None:
        _show(check)
        output.print(f"Only these may import {self.package}: {', '.join(self.importers)}")  # type: ignore[arg-type]
        output.new_line()


class Reads(Contract):
    """Of `package`, modules that match `readers`, and none of `but`, import only what matches `may`.

    What `package` imports in turn is its own affair. All are shell patterns, as those of `OnlyIn`.
    """

    type_name = "reads"

    package = fields.StringField()
    readers = fields.ListField(subfield=fields.StringField())
    but = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    may = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        package = str(self.package)
        found = []
        for reader in sorted(graph.modules):
            if not _matches(reader, self.readers) or _matches(reader, self.but):
                continue
            for read in sorted(graph.find_modules_directly_imported_by(reader)):
                if _matches(read, [package]) and not _matches(read, self.may):
                    found += graph.get_import_details(importer=reader, imported=read)
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        _show(check)
        output.print(f"Of {self.package} they may read: {', '.join(self.may)}")  # type: ignore[arg-type]
        output.new_line()


def _matches(module: str, patterns: Any) -> bool:
    return any(
        fnmatchcase(module, pattern) or fnmatchcase(module, f"{pattern}.*") for pattern in patterns
    )


def _show(check: ContractCheck) -> None:
    for detail in check.metadata["found"]:
        place = f"{detail['importer']}, line {detail['line_number']}"
        output.print_error(f"{place}: {detail['line_contents']}", bold=False)
