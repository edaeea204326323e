"""The demo's sample: docstrings of the standard library, plain questions, and grades given by hand.

The documents are part of Python, so nothing is downloaded. Imports no Django.
"""

from zelo_site.sample.docstrings import sample_documents
from zelo_site.sample.files import SamplePaths, write_sample
from zelo_site.sample.questions import Question, sample_questions

__all__ = ["Question", "SamplePaths", "sample_documents", "sample_questions", "write_sample"]
