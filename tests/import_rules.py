"""The kind of contract that `lint-imports` checks the layering with: it says what may be imported, not what may not."""

import sys

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class MayImport(Contract):
    """Every rule reads "importers: what they may import, directly, besides themselves and the standard library".

    ".nn" is the root package's module nn with everything below it, "." the root package's own `__init__`, and "numpy"
    another package. Of several rules for a module the one that names it most closely holds. Every module needs a rule,
    and every rule a module.
    """

    rules = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        (root,) = self.session_options["root_packages"]
        allowed: dict[str, set[str]] = {}
        for rule in self.rules:
            importers, _, imported = rule.partition(":")
            allowed.update({importer: {importer, *imported.split()} for importer in importers.split()})

        def names(module: str) -> list[str]:
            """What a rule may call it, the closest name first."""
            first, *rest = module.split(".")
            if first != root:
                return [first]
            return ["." + ".".join(rest[:i]) for i in range(len(rest), 0, -1)] or ["."]

        def rule_of(module: str) -> str | None:
            return next((name for name in names(module) if name in allowed), None)

        inside = sorted(module for module in graph.modules if module.split(".")[0] == root)
        known = {name for module in inside for name in names(module)}
        wrong = [f"no rule says what {names(module)[-1]} may import" for module in inside if rule_of(module) is None]
        wrong += [f"there is a rule for {name}, but no such module" for name in sorted(set(allowed) - known)]
        for importer in inside:
            may = allowed.get(rule_of(importer) or "", set())
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                if not may.intersection(names(imported)) and imported not in sys.stdlib_module_names:
                    details = graph.get_import_details(importer=importer, imported=imported)
                    lines = ", ".join(str(detail["line_number"]) for detail in details)
                    wrong.append(f"{importer} may not import {imported} (line {lines})")
        return ContractCheck(kept=not wrong, metadata={"wrong": list(dict.fromkeys(wrong))})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["wrong"]:
            output.print_error(line)
