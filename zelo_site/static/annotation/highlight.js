// Finds the words of a query in a document and shows the text with them marked. Texts only ever become text nodes.

const STOP = new Set(
  ("a an and are as at be but by can did do does for from had has have how i if in into is it its my no not of on or our " +
    "so than that the their them then there these they this to was we were what when where which who why will with you your " +
    "als am an auch auf aus bei bin bis das dass dem den der des die durch ein eine einem einen einer es für hat ich im in " +
    "ist kann mit nach nicht oder sein sich sie sind und vom von vor wann war warum was wenn wer wie wird wo zu zum zur").split(" ")
);
// Longest first; the rest must still be a word.
const ENDINGS = ["ations", "ation", "ments", "ingly", "ungen", "ment", "ings", "edly", "ung", "ing", "ies", "ers", "est",
  "ed", "es", "er", "en", "em", "ly", "s", "e", "n", "y"];
const MOST_MARKS = 2000;
const MOST_SEARCHED = 200000;
const WORD = /[\p{L}\p{N}\p{M}]+/gu;

const ASCII = /^[\x00-\x7f]*$/;
const plain = (word) => (ASCII.test(word) ? word : word.normalize("NFKD").replace(/\p{M}/gu, "")).toLowerCase();

const stems = new Map(); // the same words come again and again
const stem = (word) => {
  let found = stems.get(word);
  if (found === undefined) {
    if (stems.size > 50000) stems.clear();
    found = cut(word);
    stems.set(word, found);
  }
  return found;
};

const cut = (word) => {
  const found = plain(word);
  for (const ending of ENDINGS) {
    if (found.endsWith(ending) && found.length - ending.length >= 3) {
      const rest = found.slice(0, -ending.length);
      // "stopped" and "stop" are one word.
      return /([b-df-hj-np-tv-z])\1$/.test(rest) && rest.length > 3 ? rest.slice(0, -1) : rest;
    }
  }
  return found;
};

let segmenter = null;
const segments = () => {
  segmenter ??= "Segmenter" in Intl ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;
  return segmenter;
};
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;

// [start, end] of every word; languages without spaces are cut by the browser's own rules.
const words = (text) => {
  if (UNSPACED.test(text) && segments()) {
    return [...segments().segment(text)].filter((part) => part.isWordLike).map((part) => [part.index, part.index + part.segment.length]);
  }
  return [...text.matchAll(WORD)].map((match) => [match.index, match.index + match[0].length]);
};

// What to look for: stems that matter, and small words that only count between two of them.
const termsOf = (query) => {
  const text = query.slice(0, 4000);
  const all = words(text).map(([start, end]) => text.slice(start, end));
  const heavy = all.filter((word) => !STOP.has(plain(word)));
  return { heavy: new Set((heavy.length ? heavy : all).map(stem)), light: new Set(all.map(stem)) };
};

// [start, end] of what to mark: runs of the query's words that hold at least one that matters at either end.
const spansOf = (text, terms) => {
  const spans = [];
  let run = null;
  for (const [start, end] of words(text.slice(0, MOST_SEARCHED))) {
    const found = stem(text.slice(start, end));
    const matters = terms.heavy.has(found);
    const gap = run ? text.slice(run.reached, start) : "";
    if (run && (!/^[ \t-]{1,2}$/.test(gap) || !(matters || terms.light.has(found)))) run = null;
    if (matters && run) {
      run.span[1] = end;
    } else if (matters) {
      run = { span: [start, end] };
      spans.push(run.span);
      if (spans.length >= MOST_MARKS) break;
    }
    if (run) run.reached = end;
  }
  return spans;
};

const known = new WeakMap();

// Finds the query's words in a document before it is shown, and caches them.
export const prepare = (document_) => {
  let spans = known.get(document_);
  if (!spans) {
    spans = document_.query ? spansOf(document_.text, termsOf(document_.query)) : [];
    known.set(document_, spans);
  }
  return spans;
};

const BLOCK = 4000;

// Cuts a long text into blocks at line ends, or else at spaces, so that the browser lays out only those in view.
const blocksOf = (text) => {
  const blocks = [];
  let at = 0;
  while (text.length - at > 2 * BLOCK) {
    let end = text.lastIndexOf("\n", at + BLOCK) + 1;
    if (end <= at) end = text.indexOf("\n", at + BLOCK) + 1;
    if (end <= at || end > at + 8 * BLOCK) end = text.lastIndexOf(" ", at + 4 * BLOCK) + 1;
    if (end <= at) end = at + 4 * BLOCK;
    if (/[\udc00-\udfff]/.test(text.charAt(end))) end += 1;
    blocks.push([at, end]);
    at = end;
  }
  blocks.push([at, text.length]);
  return blocks;
};

// The nodes of text[from, to) with what lies in `spans` marked.
const nodesOf = (text, [from, to], spans) => {
  const nodes = [];
  let at = from;
  for (const [start, end] of spans) {
    if (end <= from) continue;
    if (start >= to) break;
    const begin = Math.max(start, from);
    const stop = Math.min(end, to);
    if (begin > at) nodes.push(document.createTextNode(text.slice(at, begin)));
    const mark = document.createElement("mark");
    mark.textContent = text.slice(begin, stop);
    nodes.push(mark);
    at = stop;
  }
  if (at < to) nodes.push(document.createTextNode(text.slice(at, to)));
  return nodes;
};

export const showText = (element, document_) => {
  const { text } = document_;
  const spans = prepare(document_);
  const blocks = blocksOf(text);
  if (blocks.length === 1) {
    element.replaceChildren(...nodesOf(text, blocks[0], spans));
    return;
  }
  element.replaceChildren(
    ...blocks.map((block) => {
      const box = document.createElement("div");
      box.className = "block";
      box.append(...nodesOf(text, block, spans));
      return box;
    })
  );
};
