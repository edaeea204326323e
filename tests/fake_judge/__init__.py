"""A stand-in for hosted language models: an HTTP server of its own that speaks the OpenAI API.

It shares no code with the product and never sees its database. What it was asked and what would have
been paid stands in its ledger, the referee of the tests. Start it with `python -m tests.fake_judge`
or, from a test, with `process.running_fake_judge`.
"""
