"""Directive ``api-modules``: one section for every public module of a package, from its source alone."""

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles
from study_tables import READS_STUDY


class ApiModules(SphinxDirective):
    """List the modules below a package, each with its public members."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a section a module, in the order of their names."""
        self.env.metadata[self.env.docname][READS_STUDY] = True
        lines: list[str] = []
        for name in module_names(self.env, self.arguments[0]):
            lines += [name, "-" * len(name), "", f".. autoapimodule:: {name}"]
            lines += ["   :members:", "   :undoc-members:", "   :member-order: bysource", ""]
            if names := exports(self.env, name):
                lines += [f"Also importable from here: {', '.join(names)}.", ""]
        holder = nodes.section()
        nested_parse_with_titles(self.state, StringList(lines, source=self.get_source_info()[0]), holder)
        return list(holder.children)


def documented(env: Any) -> dict[str, Any]:
    """Return what autoapi read, by full name; it keeps that as an attribute of the environment."""
    return dict(env.autoapi_all_objects)


def module_names(env: BuildEnvironment, package: str) -> list[str]:
    """Return the public modules of ``package``, itself included, in the order of their names."""
    return sorted(
        name
        for name, entry in documented(env).items()
        if entry.type in ("module", "package") and f"{name}.".startswith(f"{package}.") and "._" not in name
    )


def exports(env: BuildEnvironment, package: str) -> list[str]:
    """Return references to the names that ``package`` lists in ``__all__`` and defines in one of its modules."""
    entry = documented(env)[package]
    found = {child.name: child.obj["original_path"] for child in entry.children if child.imported}
    return [f":py:obj:`{name} <{found[name]}>`" for name in entry.obj["all"] or [] if name in found]


def skip_member(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a module only imports, and pydantic's own switchboard."""
    return True if member.imported or name.rpartition(".")[2] == "model_config" else None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Link an annotation to the place where its name is documented.

    Sphinx looks for a class under the very name. Here a name may be a type alias, or be imported from the package that
    exports it.
    """
    if node.get("refdomain") != "py":
        return None
    known = documented(env).get(node["reftarget"])
    target = known.obj.get("original_path", known.id) if known else node["reftarget"]
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)


class AbsoluteValues(SphinxTransform):
    """Read the bars of |w| in a docstring as what they are, unless they name a substitution."""

    default_priority = 215  # between Sphinx's own substitutions and docutils', which would call |w| an error

    def apply(self, **kwargs: Any) -> None:
        """Turn references to substitutions that nobody defined back into text."""
        for bars in list(self.document.findall(nodes.substitution_reference)):
            if bars["refname"] not in self.document.substitution_defs:
                bars.parent.replace(bars, nodes.Text(f"|{bars.astext()}|"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, the transform and the two hooks."""
    app.add_directive("api-modules", ApiModules)
    app.add_transform(AbsoluteValues)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
