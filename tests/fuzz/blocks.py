"""Which blocks of code an input reaches, at little more than the cost of running them.

`sys.settrace` would make each input several times slower, and `sys.monitoring` needs Python 3.12.
So the modules are compiled with one more statement at the beginning of each block: `__hits__[n] =
1`. A block is the body of a function, of each side of a branch (also of one that is not written),
of a loop, and of an `except`.
"""

from __future__ import annotations

import ast
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

_NAME = "__hits__"
_MOST_BLOCKS = 1 << 14


class Blocks(MetaPathFinder):
    """Notes which blocks of some packages run, if they are imported after `install`.

    Attributes:
      count: How many blocks there are, as far as modules were imported.
    """

    def __init__(self, *packages: str) -> None:
        self.count = 0
        self._packages = packages
        self._hits = bytearray(_MOST_BLOCKS)
        self._none = bytes(_MOST_BLOCKS)

    def install(self) -> None:
        """Have the packages compiled with marks from now on.

        Raises:
          RuntimeError: One of them has been imported.
        """
        if imported := [name for name in self._packages if name in sys.modules]:
            raise RuntimeError(f"imported before its blocks could be marked: {imported}")
        sys.meta_path.insert(0, self)

    def take(self) -> int:
        """The blocks that ran since the last call: bits of an integer."""
        hits = int.from_bytes(self._hits, "little")
        self._hits[:] = self._none
        return hits

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks for it."""
        if fullname.partition(".")[0] not in self._packages:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path, self)
        return spec

    def mark(self, source: bytes, filename: str) -> CodeType:
        """Compile a module with marks."""
        tree = _Marker(self).visit(ast.parse(source, filename))
        return compile(ast.fix_missing_locations(tree), filename, "exec", dont_inherit=True)

    def run(self, code: CodeType, namespace: dict[str, object]) -> None:
        """Run marked code."""
        namespace[_NAME] = self._hits
        exec(code, namespace)

    def next_number(self) -> int:
        """The number of one more block."""
        self.count += 1
        return self.count - 1


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, blocks: Blocks) -> None:
        super().__init__(fullname, path)
        self._blocks = blocks

    def exec_module(self, module: ModuleType) -> None:
        code = self._blocks.mark(self.get_data(self.path), self.path)
        self._blocks.run(code, module.__dict__)


class _Marker(ast.NodeTransformer):
    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                has_doc = ast.get_docstring(node, clean=False) is not None
                node.body.insert(int(has_doc), self._mark(node))
            case ast.If() | ast.For() | ast.AsyncFor() | ast.While():
                node.body.insert(0, self._mark(node))
                node.orelse.insert(0, self._mark(node))
            case ast.ExceptHandler() | ast.match_case():
                node.body.insert(0, self._mark(node.body[0]))
        return node

    def _mark(self, where: ast.stmt | ast.ExceptHandler) -> ast.stmt:
        (mark,) = ast.parse(f"{_NAME}[{self._blocks.next_number()}] = 1").body
        for node in ast.walk(mark):
            ast.copy_location(node, where)
        return mark
