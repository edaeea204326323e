"""A world for `training.py`: topics over the standard library's docstrings, questions in many wordings, hidden quality.

Grade 3 is a document of the question's own topic, 1 one of a topic near it, 0 any other. Judges see the grade
through noise. Documents and wordings of the test are never trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.records import FloatArray
from tests.fake_judge.quality import gauss
from zelo_site.demo.sample.docstrings import sample_documents

CANDIDATES, OWN, NEAR = 20, 5, 5
QUALITY = {3: 2.0, 1: 0.0, 0: -2.0}
QUALITY_NOISE = 0.5
TRAINING_TEMPLATES = (
    "How do I {}?", "What is the best way to {}", "I need to {} in my script", "{}: where do I begin?",
    "Which function helps me to {}?", "python {}",
)  # fmt: skip
TEST_TEMPLATES = ("Is there something ready-made with which I can {}?", "My program ought to {}. What do I use")


@dataclass(frozen=True, slots=True)
class Topic:
    """Modules whose docstrings belong to it, topics near it, and what people want there: for training, for the test."""

    name: str
    modules: tuple[str, ...]
    near: tuple[str, ...]
    wishes: tuple[str, ...]
    unseen: tuple[str, ...]


def _topic(name: str, modules: str, near: str, wishes: str, unseen: str) -> Topic:
    parts = (tuple(part.strip() for part in text.split(";")) for text in (modules, near, wishes, unseen))
    return Topic(name, *parts)


TOPICS = (
    _topic("compression", "gzip;bz2;lzma;zlib", "archives",
           "make a file take less space;read a log that was squeezed;shrink bytes before storing them;undo the packing of a stream",
           "cut the size of my data on disk;expand a stream that came in smaller form"),
    _topic("archives", "zipfile;tarfile;zipapp", "compression",
           "bundle a folder into one file;list what is inside a bundle;unpack everything to a directory;add a member to a bundle",
           "put many files together for shipping;take one file out of a package of files"),
    _topic("mail", "email;mailbox;smtplib;imaplib;poplib", "network",
           "send a message to a person;read my inbox;build a letter with attachments;delete old messages on the server",
           "mail a report to my colleagues;look at the headers of a letter"),
    _topic("network", "socket;socketserver;ssl;select;selectors;ftplib", "web;mail",
           "talk to another machine;listen on a port;encrypt a connection;wait until a peer sends bytes",
           "open a link between two hosts;serve clients over TCP"),
    _topic("web", "http;urllib;html;webbrowser;xmlrpc", "network;markup",
           "download a page;parse an address with a query string;answer requests of a browser;keep cookies",
           "fetch something from a site;escape text for a page"),
    _topic("markup", "xml;html;plistlib", "web;settings",
           "walk through a tree of elements;read a feed of tags;write nested tags;find nodes by a path",
           "process a document full of elements and attributes;build a tree of nodes and save it"),
    _topic("settings", "configparser;json;tomllib;csv;argparse;optparse;getopt", "markup",
           "read the options of my program;load a file of keys and values;parse what was typed after the command;save a table as text",
           "let users configure a tool;turn a structured text into a dictionary"),
    _topic("dates", "datetime;calendar;time;zoneinfo", "scheduling",
           "find the weekday of a day;add three weeks to a day;convert between zones;print a moment for people",
           "compute how many days lie between two events;show a month as a grid"),
    _topic("numbers", "math;cmath;decimal;fractions;numbers", "chance",
           "take a root;round money exactly;compute an angle;work with ratios without losing digits",
           "calculate logarithms;do exact arithmetic"),
    _topic("chance", "random;statistics;secrets", "numbers",
           "shuffle a deck;draw a sample;find the spread of measurements;make a token nobody can guess",
           "roll dice in a simulation;summarise how measurements vary"),
    _topic("text", "re;string;textwrap;difflib;unicodedata;shlex", "encoding",
           "search for a pattern;wrap long lines;compare two versions of a paragraph;split words as a shell does",
           "replace parts of a sentence that match a rule;show what changed between two texts"),
    _topic("encoding", "codecs;base64;binascii;quopri;locale;encodings", "text;hashing",
           "turn bytes into letters;write binary data as printable signs;decode a foreign character set;show numbers as a country writes them",
           "convert characters to raw bytes;make binary safe for transport"),
    _topic("hashing", "hashlib;hmac;uuid;secrets", "encoding",
           "check that a download is intact;sign a message with a key;make a fingerprint of a file;get an identifier that is unique",
           "verify that nobody changed my data;derive a key from a password"),
    _topic("files", "os;pathlib;shutil;glob;tempfile;filecmp;fileinput;stat", "archives;processes",
           "copy a directory;walk through all folders;delete something on disk;make a scratch place that cleans itself up",
           "rename things in a directory;find out how large something on disk is"),
    _topic("processes", "subprocess;multiprocessing;signal;concurrent;pwd;resource", "threads;files",
           "run another program and read its output;use all cores;stop a child that hangs;limit the memory of a job",
           "start an external command;spread work over several workers"),
    _topic("threads", "threading;asyncio;queue;contextvars;sched", "processes",
           "protect a value from two writers;wait for several tasks at once;hand work from producer to consumer;do things concurrently without blocking",
           "coordinate parallel flows with a lock;run coroutines side by side"),
    _topic("scheduling", "sched;time;timeit;asyncio", "dates;threads",
           "run something later;measure how long a call takes;sleep for a moment;repeat a job every minute",
           "delay a function;clock a snippet"),
    _topic("collections", "collections;heapq;bisect;array;itertools;queue", "functions",
           "count how often things occur;keep a list sorted;take the smallest items;go through pairs of neighbours",
           "group items by a key;use a ring that drops the oldest entries"),
    _topic("functions", "functools;operator;itertools;contextlib;dataclasses;enum;types", "collections",
           "remember results of a call;make a class that only holds fields;close something whatever happens;name constants",
           "fix some arguments of a function;write a small record type"),
    _topic("debugging", "pdb;bdb;traceback;logging;warnings;faulthandler;trace;tracemalloc", "testing",
           "stop at a line and look around;print where an error came from;write messages of different severity;find what eats memory",
           "step through my code;record what a service does"),
    _topic("testing", "unittest;doctest", "debugging",
           "check that a function gives the right answer;replace a dependency by a stand-in;run all checks in a folder;prepare things before each check",
           "assert that an exception is raised;fake an object in a check"),
    _topic("source", "ast;inspect;dis;tokenize;symtable;importlib;pkgutil;compileall;pickletools", "debugging",
           "look at the tree of a program;find the signature of a callable;load a module by its name;see the instructions of a function",
           "analyse code without running it;discover plug-ins at run time"),
    _topic("storage", "sqlite3;shelve;dbm;pickle;marshal;copyreg", "settings",
           "keep objects between two runs;ask a table with a query;turn an object into bytes;store values under keys on disk",
           "save the state of my program;run a statement against a database"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its candidates and their grades (3, 1, 0)."""

    text: str
    topic: str
    documents: tuple[str, ...]
    grades: FloatArray


@dataclass(frozen=True, slots=True)
class World:
    training: list[Question]
    test: list[Question]


def make_world(seed: int = 0) -> World:
    """Questions of all topics in all wordings; the documents of the test are a third of all, chosen by their hash."""
    rng = np.random.default_rng(seed)
    texts: dict[bool, dict[str, list[str]]] = {False: {}, True: {}}
    for document in sample_documents():
        module = document.id.split(".")[0]
        unseen = hashlib.sha256(document.text.encode()).digest()[0] % 3 == 0
        texts[unseen].setdefault(module, []).append(document.text)
    return World(
        training=[
            _question(topic, template.format(wish), texts[False], rng)
            for topic in TOPICS
            for wish in topic.wishes
            for template in TRAINING_TEMPLATES
        ],
        test=[
            _question(topic, template.format(wish), texts[True], rng)
            for topic in TOPICS
            for wish in topic.unseen
            for template in TEST_TEMPLATES
        ],
    )


def _question(topic: Topic, text: str, by_module: dict[str, list[str]], rng: np.random.Generator) -> Question:
    near = [other for other in TOPICS if other.name in topic.near]
    modules = set(topic.modules)
    close = {module for other in near for module in other.modules} - modules
    picked: list[tuple[str, int]] = []
    for some, grade, count in (
        (modules, 3, OWN),
        (close, 1, NEAR),
        (by_module.keys() - modules - close, 0, CANDIDATES - OWN - NEAR),
    ):
        pool = [each for module in sorted(some) for each in by_module.get(module, [])]
        picked += [(pool[at], grade) for at in rng.choice(len(pool), min(count, len(pool)), replace=False)]
    order = rng.permutation(len(picked))
    return Question(
        text=text[0].upper() + text[1:],
        topic=topic.name,
        documents=tuple(picked[at][0] for at in order),
        grades=np.array([picked[at][1] for at in order], dtype=np.float64),
    )


def hidden_quality(questions: Sequence[Question]) -> list[FloatArray]:
    """What the fake judges think of each document, in logits."""
    return [
        np.array(
            [
                QUALITY[int(grade)] + QUALITY_NOISE * gauss(f"quality {question.text} {document}")
                for document, grade in zip(question.documents, question.grades, strict=True)
            ]
        )
        for question in questions
    ]
