"""What every browser test checks: axe finds no serious fault, and nothing is wider than the screen, in every look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import LOOKS, WIDEST, Visit

Start = Callable[..., Visit]


AXE = Axe()
SERIOUS = {"serious", "critical"}
# Rules that read colours; the rest sees the same page in light and in dark.
COLOURS = ("color-contrast", "link-in-text-block")
# One element of each kind of text: the same styles on all elements above it, so the same contrast. Axe takes
# milliseconds to find the background of a single cell of a table.
KINDS_OF_TEXT = """() => {
  const styles = ["color", "fill", "backgroundColor", "backgroundImage", "opacity", "filter", "fontSize", "fontWeight",
    "textShadow", "position", "visibility", "display"];
  const kinds = new Map();
  const kind = element => {
    if (element === null) return "";
    if (!kinds.has(element)) {
      const style = getComputedStyle(element);
      kinds.set(element, [kind(element.parentElement), element.localName, ...styles.map(each => style[each])].join());
    }
    return kinds.get(element);
  };
  const found = new Map();
  for (const element of document.body.querySelectorAll("*")) {
    const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if ((hasText || element.matches("input, select, textarea")) && element.checkVisibility() && !found.has(kind(element)))
      found.set(kind(element), element);
  }
  return [...found.values()];
}"""


def serious_faults(visited: Visit, *, of_colours_alone: bool = False) -> list[str]:
    """What axe finds serious or critical, as one line each; the page gets axe once."""
    found = _colour_faults(visited)
    if not of_colours_alone:
        found += _violations(visited, {rule: {"enabled": False} for rule in COLOURS})
    return [_line(each) for each in found if each["impact"] in SERIOUS]


def all_faults(visited: Visit) -> list[str]:
    """What axe finds, of any weight, with the size of what one presses, which it leaves out unless asked."""
    rules = {rule: {"enabled": False} for rule in COLOURS} | {"target-size": {"enabled": True}}
    return [_line(each) for each in _violations(visited, rules) + _colour_faults(visited)]


def _violations(visited: Visit, rules: dict[str, Any]) -> list[dict[str, Any]]:
    return _run_axe(visited, "options => axe.run(options)", {"rules": rules})


def _colour_faults(visited: Visit) -> list[dict[str, Any]]:
    script = f"options => axe.run({{include: ({KINDS_OF_TEXT})()}}, options)"
    return _run_axe(visited, script, {"runOnly": {"type": "rule", "values": COLOURS}})


def _run_axe(visited: Visit, script: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    if not visited.page.evaluate("'axe' in window"):
        visited.page.evaluate(AXE.axe_script)
    found: list[dict[str, Any]] = visited.page.evaluate(script, {"resultTypes": ["violations"], **options})[
        "violations"
    ]
    return found


def _line(fault: dict[str, Any]) -> str:
    first = fault["nodes"][0]
    return f"{fault['id']}: {fault['help']} at {first['target']} {first['html'][:120]}"


def overflow(visited: Visit) -> int:
    """By how many pixels the page is wider than the screen."""
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(visited.page.evaluate(wide))


# Inputs that stand beside each other in a form, and do not begin at the same height.
_MISALIGNED = """() => [...document.querySelectorAll(".fields")].flatMap(group => {
  const shown = [...group.querySelectorAll(":scope > .field > :is(input, select)")].filter(
    each => !["checkbox", "radio", "hidden"].includes(each.type) && !each.multiple && each.offsetParent);
  const places = shown.map(each => [each.id || each.name, each.getBoundingClientRect()]);
  return places.flatMap(([a, p]) => places.filter(([b, q]) => p.left < q.left && Math.abs(p.top - q.top) > 1
    && p.top < q.bottom && q.top < p.bottom).map(([b, q]) => `${a} at ${p.top}, ${b} at ${q.top}`));
})"""


def misaligned(visited: Visit) -> list[str]:
    """Inputs beside each other that do not begin at the same height."""
    return list(visited.page.evaluate(_MISALIGNED))


def faults_in_looks(visited: Visit, name: str, looks: Iterable[str] = tuple(LOOKS)) -> dict[str, Any]:
    """Faults of the open page by name and look; the page is loaded once, and stands in the first look again afterwards."""
    looks, faults = list(looks), {}
    for look in looks:
        show_in(visited, look)
        visited.picture(f"{name}-{look}")
        if (wide := overflow(visited)) > 0:
            faults[f"{name} overflows, {look}"] = wide
        if crooked := misaligned(visited):
            faults[f"{name} is not aligned, {look}"] = crooked
        if serious := serious_faults(visited, of_colours_alone=look == "dark" and "light" in looks):
            faults[f"{name}, {look}"] = serious
    show_in(visited, looks[0])
    return faults


def show_in(visited: Visit, look: str) -> None:
    """Change the size and the colours of the open page."""
    options = WIDEST if look == "widest" else LOOKS[look]
    visited.page.set_viewport_size(options["viewport"])
    visited.page.emulate_media(color_scheme=options["color_scheme"])
