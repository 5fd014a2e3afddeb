"""The page of a report."""

from html import escape

from roadcast.forecasting.evaluation import Outcome
from roadcast.report.findings import AFTER, BEFORE, HEADINGS, Findings, cells
from roadcast.report.pictures import Picture, pictures

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --quiet: #59636e; --line: #d1d9e0; --mark: #eef5fb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --paper: #14171a; --quiet: #a0a9b2; --line: #3a4149; --mark: #1c2a38 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
p, figcaption, caption { color: var(--quiet); max-width: 46rem; overflow-wrap: anywhere }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
.scroll:focus-visible { outline: 2px solid #0072b2 }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap } th { font-weight: 600 }
th:first-child { text-align: left }
tbody { border-top: 1px solid var(--line) } tbody.serves { background: var(--mark) }
th[scope=rowgroup] { text-align: left; vertical-align: top } th[scope=rowgroup] small { display: block;
  font-weight: 400; color: var(--quiet) }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem }
figure { margin: 0; min-width: 0 } figure.wide { grid-column: 1 / -1 } svg { display: block; width: 100%; height: auto }
figure strong { display: block; overflow-wrap: anywhere } svg text { font-family: system-ui, sans-serif !important }
figcaption { font-size: .875rem }
@media (max-width: 40rem) { figure.wide .scroll svg { width: 42rem } } figure .scroll { border: 0 }
"""


def page(findings: Findings) -> str:
    """The report as HTML."""
    title = f"Backtest of {escape(findings.title)}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{escape(_account(findings))}</p>
<h2 id="table">Errors</h2>
{_table(findings)}
<p>{escape(_legend(findings))}</p>
<h2>Pictures</h2>
<div class="pictures">
{"".join(map(_figure, pictures(findings)))}</div>
</main>
</body>
</html>
"""


def _account(findings: Findings) -> str:
    history, first = findings.task.history, findings.task.test_from
    return (
        f"{history.sensors} sensors, {len(history)} ticks of {findings.ahead(1)}, of which the first {first} were "
        f"learnt from. {findings.served} would serve, by its errors on the last of these; no tick of the test has "
        "part in what is learnt or chosen before it is forecast."
    )


def _legend(findings: Findings) -> str:
    how = "over all steps up to the horizon" if findings.pooled else "of the step alone"
    return (
        "count: how many targets; "
        f"MAE, RMSE, bias (forecast − truth) and the Winkler scores of the 80 % and 90 % intervals in {findings.unit}, "
        f"{how}; 80 % and 90 %: shares of targets within these intervals; ECE: by how much confidence was wrong that "
        f"an error is at most {findings.tolerance}; "
        "CPU-s and MB: time and the most memory that training took."
    )


def _table(findings: Findings) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in (*BEFORE, *HEADINGS, *AFTER))
    bodies = "".join(_body(findings, outcome) for outcome in findings.outcomes)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="table">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n{bodies}</table>\n</div>"
    )


def _body(findings: Findings, outcome: Outcome) -> str:
    serves = outcome.forecaster == findings.served
    name = escape(outcome.forecaster) + ("<small>would serve</small>" if serves else "")
    before = f'<th scope="rowgroup" rowspan="{len(findings.steps)}">{name}</th>'
    cost = (f"{outcome.train_cpu_s:.1f}", f"{outcome.peak_mb:.0f}")
    rows: list[str] = []
    for step in findings.steps:
        data = (*cells(findings.measures(outcome, step)), *cost)
        row = f'<th scope="row">{findings.ahead(step)}</th>' + "".join(f"<td>{cell}</td>" for cell in data)
        rows.append(f"<tr>{before}{row}</tr>\n")
        before, cost = "", ("", "")
    group = '<tbody class="serves">' if serves else "<tbody>"
    return f"{group}\n{''.join(rows)}</tbody>\n"


def _figure(picture: Picture) -> str:
    """Its words are its caption, which nobody is spared."""
    wide = ' class="wide"' if picture.wide else ""
    title = escape(picture.title)
    region = f' tabindex="0" role="region" aria-label="{title}"' if picture.wide else ""
    svg = picture.svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    return (
        f"<figure{wide}><strong>{title}</strong>\n"
        f'<div class="scroll"{region}>{svg}</div>\n'
        f"<figcaption>{escape(picture.words)}</figcaption></figure>\n"
    )
