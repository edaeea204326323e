"""Documents that try to run something, or to break the page: over a hundred, made from parts.

Whatever runs calls `boom()`, which the test defines; a page that shows these texts as texts never calls it.
"""

from __future__ import annotations

import itertools

CALL = "boom()"

_EVENTS = {
    "img src=x": "onerror", "img srcset=x": "onerror", "svg": "onload", "body": "onload", "iframe": "onload",
    "input autofocus": "onfocus", "select autofocus": "onfocus", "textarea autofocus": "onfocus", "video src=x": "onerror",
    "audio src=x": "onerror", "details open": "ontoggle", "marquee": "onstart", "object data=x": "onerror",
    "embed src=x": "onload", "link rel=stylesheet href=x": "onerror", "style": "onload", "script src=x": "onerror",
    "div style=animation-name:arrive;animation-duration:1s": "onanimationstart", "p tabindex=1 autofocus": "onfocus",
    "meter autofocus": "onmouseover", "source src=x": "onerror", "frameset": "onpageshow", "html": "onscroll",
    "button autofocus popovertarget=p": "onbeforetoggle",
}  # fmt: skip
_HANDLERS = [f"<{tag} {event}={CALL}>" for tag, event in _EVENTS.items()]
_QUOTINGS = [
    f"{close}<img src=x onerror={CALL}>"
    for close in (
        '"', "'", '">', "'>", "`>", "-->", "]]>", "</textarea>", "</title>", "</style>", "</script>", "</template>",
        "</noscript>", "</svg>", "</math>", "</dialog>", "</q>", "*/", "${", "}}", "%}", "\n\n", "\x0b", "\u2028",
    )
]  # fmt: skip
_SCRIPTS = [
    f"<script>{CALL}</script>", f"<ScRiPt>{CALL}</sCrIpT>", f"<script\n>{CALL}</script\n>", f"<script/x>{CALL}</script>",
    f"<<script>{CALL}//<</script>", f"<scr<script>ipt>{CALL}</scr</script>ipt>", f"<script type=module>{CALL}</script>",
    f'<script src="data:text/javascript,{CALL}"></script>', f"<svg><script>{CALL}</script></svg>",
    f"<math><mtext><script>{CALL}</script></mtext></math>", f"<template><script>{CALL}</script></template>",
    f"<noscript><p title='</noscript><img src=x onerror={CALL}>'></noscript>", f"<!--><script>{CALL}</script>-->",
    f"<![CDATA[<script>{CALL}</script>]]>", f"<?xml version='1.0'?><script>{CALL}</script>",
    f"<iframe srcdoc='<script>parent.{CALL}</script>'></iframe>", f"<object data='data:text/html,<script>{CALL}</script>'></object>",
    f"<svg><animate onbegin={CALL} attributeName=x dur=1s>", f"<svg><set onbegin={CALL} attributeName=x>",
    f"<svg><foreignObject><img src=x onerror={CALL}></foreignObject></svg>",
    f"<svg><use href=\"data:image/svg+xml,<svg id='x' xmlns='http://www.w3.org/2000/svg'><a href='javascript:{CALL}'/></svg>#x\"/></svg>",
    f"<form><button formaction=javascript:{CALL}>press</button></form>", f"<base href=javascript:{CALL}//>",
    f"<meta http-equiv=refresh content='0;url=javascript:{CALL}'>", f"<link rel=import href='data:text/html,{CALL}'>",
    f"<style>@import 'javascript:{CALL}';</style>", f"<div style=\"background:url(javascript:{CALL})\">",
    f"<div style=width:expression({CALL})>", f"<table background=javascript:{CALL}>", f"<isindex type=image src=1 onerror={CALL}>",
    f"<a href=javascript:{CALL} autofocus>here</a>", f"<a href=' java\tscript:{CALL}'>here</a>", f"javascript:{CALL}",
    f"<a href=\"&#106;avascript:{CALL}\">here</a>", f"<math href=javascript:{CALL}>here</math>",
]  # fmt: skip
_ENCODED = [
    f"&lt;script&gt;{CALL}&lt;/script&gt;", f"&#60;script&#62;{CALL}&#60;/script&#62;", f"&#x3c;img src=x onerror={CALL}&#x3e;",
    f"&amp;lt;img src=x onerror={CALL}&amp;gt;", f"%3Cscript%3E{CALL}%3C/script%3E", f"\\u003cscript\\u003e{CALL}\\u003c/script\\u003e",
    f"\\x3cimg src=x onerror={CALL}\\x3e", f"+ADw-script+AD4-{CALL}+ADw-/script+AD4-", f"＜script＞{CALL}＜/script＞",
    f"‹img src=x onerror={CALL}›", f"<\ufeffscript>{CALL}</script>", f"<img src=x one\u0000rror={CALL}>".replace("\u0000", "\u0001"),
    f"<ſcript>{CALL}</ſcript>", f"<ımg src=x onerror={CALL}>", f"<img src=x onerror={CALL}\u2028>",
]  # fmt: skip
_TEMPLATES = [
    "{{ 7|add:7 }}", "{% load static %}{% static 'x' %}", "{% include 'zelo/base.html' %}", "{{ request.user.password }}",
    "{{constructor.constructor('boom()')()}}", "${boom()}", "#{boom()}", "<%= boom() %>", "{{= boom() }}", "[[${boom()}]]",
    "{n} words {query} {time} {error}", "%(name)s %s %d %%", "$& $1 $` $'", "__proto__", "constructor", "hasOwnProperty",
    "<div hx-get='/sign-out/' hx-trigger='load'>", "<div hx-on::load='boom()' data-hx-on-load='boom()'>",
    "<button data-answer='left_clearly' autofocus>1</button>", "<div id='screen'>{}</div><p id='pair'>x</p>",
]  # fmt: skip
_TYPESETTING = [
    "\u202eleft to right, or is it\u202c?", "\u2066\u2067\u2068 isolates that never end", "\u202e" * 500 + "A", "שלום, עולם \u200f(1) <b>",
    "مرحبا بالعالم 123 <script>", "H\u0335\u0321" * 400, "a" + "\u0301" * 1000, "x" * 20_000, "—" * 5_000, "ｗｉｄｅ" * 2_000,
    "👩‍👩‍👧‍👦" * 1_000, "\u200b" * 3_000 + "nothing", "\u00a0" * 3_000 + "far", "\t" * 200 + "indented", "\n" * 400 + "far below",
    "W\u034f" * 2_000, "𓀀𒀱⸻﷽" * 60, "\u2028line\u2029paragraph\u0085next", "http://" + "long/" * 2_000, "| " * 4_000,
]  # fmt: skip

HOSTILE: list[str] = list(itertools.chain(_HANDLERS, _QUOTINGS, _SCRIPTS, _ENCODED, _TEMPLATES, _TYPESETTING))
