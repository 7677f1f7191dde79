"""Forward passes: windows and continuations scored exactly, packed and shared where that changes no figure. Needs torch."""
