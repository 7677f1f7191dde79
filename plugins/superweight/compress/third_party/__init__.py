"""Other people's quantisers, a script each, which `launch.py` runs in whatever Python has the tool.

A script has one function, `quantise(job)`, which reads the model in `job.source` and writes a compressed one into
`job.out`. It imports its tool in there, and nothing of this library, so that it also runs where the library is not.
"""
