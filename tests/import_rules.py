"""The kind of contract that `lint-imports` checks the layering with: it says what may be imported, not what may not."""

import sys

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class MayImport(Contract):
    """Every rule reads "importers: what they may import, directly, besides themselves and the standard library".

    ".nn" is the root package's module nn with everything below it, "." the root package's own `__init__`, and "numpy"
    another package. Every module needs a rule, and every rule a module.
    """

    rules = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        (root,) = self.session_options["root_packages"]
        allowed: dict[str, set[str]] = {}
        for rule in self.rules:
            importers, _, imported = rule.partition(":")
            allowed.update({importer: {importer, *imported.split()} for importer in importers.split()})

        def part(module: str) -> str:
            first, *rest = module.split(".")
            return first if first != root else "." + "".join(rest[:1])

        inside = sorted(module for module in graph.modules if part(module).startswith("."))
        parts = {part(module) for module in inside}
        wrong = [f"no rule says what {name} may import" for name in sorted(parts - set(allowed))]
        wrong += [f"there is a rule for {name}, but no such module" for name in sorted(set(allowed) - parts)]
        for importer in inside:
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                if part(imported) not in allowed.get(part(importer), ()) and imported not in sys.stdlib_module_names:
                    details = graph.get_import_details(importer=importer, imported=imported)
                    lines = ", ".join(str(detail["line_number"]) for detail in details)
                    wrong.append(f"{importer} may not import {imported} (line {lines})")
        return ContractCheck(kept=not wrong, metadata={"wrong": wrong})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["wrong"]:
            output.print_error(line)
