"""Makes helm/loragate/dashboards/loragate.json: `python -m scripts.dashboard.build`."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboard.panel import Panel
from scripts.dashboard.panels import ROWS

FILE = Path(__file__).parents[2] / "helm" / "loragate" / "dashboards" / "loragate.json"
RUNBOOKS = "https://loragate.example/runbooks"
"""The chart puts the base of the operator's runbooks in its place, as in the alerts."""

JOBS = 'namespace=~"$namespace", job=~"$job"'
REPLICAS = f'{JOBS}, instance=~"$instance"'
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
PANEL_HEIGHT = {"stat": 4, "table": 8, "timeseries": 8}
Builder = stat.Panel | table.Panel | timeseries.Panel


def render() -> str:
    """The JSON of the dashboard."""
    made = (
        dashboard.Dashboard("loragate")
        .uid("loragate")
        .description("May these adapters be loaded? What loragate decides, and how it fares.")
        .tags(["loragate"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .readonly()
        .links([runbook_link("Alerts", "README")])
    )
    for variable in variables():
        made.with_variable(variable)
    for title, panels in ROWS.items():
        made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(build(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def variables() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    """What can be chosen at the top."""
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        choice("namespace", "Namespace", "label_values(loragate_build_info, namespace)"),
        choice("job", "Job", 'label_values(loragate_build_info{namespace=~"$namespace"}, job)'),
        choice("instance", "Replica", f"label_values(loragate_build_info{{{JOBS}}}, instance)"),
    ]


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """Some or all of what Prometheus knows; all includes series without the label."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def build(panel: Panel) -> Builder:
    """One panel with its queries, threshold and links."""
    made: Builder
    if panel.kind == "stat":
        made = stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    elif panel.kind == "table":
        made = table.Panel()
    else:
        made = lines(panel)
    made.title(panel.title).description(panel.text).unit(panel.unit).datasource(SOURCE)
    made.span(panel.width).height(PANEL_HEIGHT[panel.kind]).thresholds(thresholds(panel))
    made.links([runbook_link(f"Loragate{alert}", f"Loragate{alert}") for alert in panel.alerts])
    for number, (expression, legend) in enumerate(panel.queries.items()):
        made.with_target(query(expression, legend, "ABCDEFGH"[number], panel.kind))
    return made


def lines(panel: Panel) -> timeseries.Panel:
    """Lines over time, from zero."""
    made = (
        timeseries.Panel().min(0).fill_opacity(10).show_points(common_models.VisibilityMode.NEVER)
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if panel.objective is not None:
        mode = common_models.GraphThresholdsStyleMode.LINE
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(mode))
    return made


def thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Green below the objective and red from there; the other way round for `good`."""
    steps = [models.Threshold(value=None, color="green")]
    if panel.objective is not None:
        steps.append(models.Threshold(value=panel.objective, color="red"))
    elif panel.good is not None:
        steps = [
            models.Threshold(value=None, color="red"),
            models.Threshold(value=panel.good, color="green"),
        ]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def query(expression: str, legend: str, letter: str, kind: str) -> prometheus.Dataquery:
    """One query; tables want the labels of now."""
    filled = expression.replace("$S", REPLICAS).replace("$J", JOBS)
    made = prometheus.Dataquery().expr(filled).ref_id(letter).datasource(SOURCE)
    if legend:
        made.legend_format(legend)
    if kind == "table":
        made.instant().format("table")
    elif kind == "timeseries":
        made.range().exemplar(True)
    return made


def runbook_link(title: str, page: str) -> dashboard.DashboardLink:
    """A link to a page of the runbooks."""
    return (
        dashboard.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"{RUNBOOKS}/{page}")
        .target_blank(True)
    )


if __name__ == "__main__":
    FILE.write_text(render())
