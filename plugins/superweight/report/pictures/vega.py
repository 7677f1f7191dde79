"""A process that turns Vega-Lite into SVG: specifications in, one line each, SVG or an error out, one line each.

It is run as a script of its own, so that nothing which goes wrong in the renderer, a native library with a JavaScript
engine in it, takes the run and its report with it.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Read specifications from standard input until it ends; answer each at once."""
    import vl_convert

    for line in sys.stdin:
        try:
            answer = {"svg": vl_convert.vegalite_to_svg(json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
