"""Forward passes: windows and continuations scored exactly, packed where that changes no figure. Needs torch."""
