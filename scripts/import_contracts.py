"""The import-linter contract that says which modules may import a third-party package."""

from __future__ import annotations

from fnmatch import fnmatchcase

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyIn(Contract):
    """Only modules that match one of `importers` import `package`.

    `importers` are shell patterns over whole module names, and a package stands for what is in it:
    `serving.engine`, `serving.commands.stack.cli*`, `serving.*_ray`. import-linter's own `protected`
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
        patterns: list[str] = self.importers  # type: ignore[assignment]
        return any(
            fnmatchcase(importer, pattern) or fnmatchcase(importer, f"{pattern}.*")
            for pattern in patterns
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        for detail in check.metadata["found"]:
            place = f"{detail['importer']}, line {detail['line_number']}"
            output.print_error(f"{place}: {detail['line_contents']}", bold=False)
        output.print(f"Only these may import {self.package}: {', '.join(self.importers)}")  # type: ignore[arg-type]
        output.new_line()
