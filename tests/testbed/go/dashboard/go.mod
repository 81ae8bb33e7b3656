// Checks the dashboard against Grafana's own types. The version is pinned here and nowhere else: `go get PATH@VERSION && go mod tidy`.
module affix.dev/testbed/dashboard

go 1.26.7

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
