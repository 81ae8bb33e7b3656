// Command rules evaluates alert rules on scrapes, with Prometheus's own engine.
//
//	rules RULES.yaml < scrapes.json
//
// The scrapes are a list of {"at": UNIX SECONDS, "texts": {INSTANCE: OPENMETRICS}}; series get the label instance, as Prometheus has it. The rules are evaluated at each of them, in order, and what
// it prints is one list for each scrape: the alerts that fire then, each with its labels and annotations.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"
)

type scrape struct {
	At    float64           `json:"at"`
	Texts map[string]string `json:"texts"`
}

type alert struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "rules: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("say `rules RULES.yaml`, with the scrapes on standard input")
	}
	groups, err := load(args[0])
	if err != nil {
		return err
	}
	var scrapes []scrape
	if err := json.NewDecoder(in).Decode(&scrapes); err != nil {
		return fmt.Errorf("the scrapes cannot be read: %w", err)
	}
	dir, err := os.MkdirTemp("", "affix-rules-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		return err
	}
	defer db.Close()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute})
	query := rules.EngineQueryFunc(engine, db)

	firing := make([][]alert, 0, len(scrapes))
	for _, scrape := range scrapes {
		at := time.UnixMilli(int64(scrape.At * 1000))
		for instance, text := range scrape.Texts {
			if err := store(ctx, db, instance, text, at); err != nil {
				return err
			}
		}
		now := []alert{}
		for _, rule := range groups {
			if _, err := rule.Eval(ctx, 0, at, query, nil, 0); err != nil {
				return fmt.Errorf("%s: %w", rule.Name(), err)
			}
			for _, active := range rule.ActiveAlerts() {
				if active.State == rules.StateFiring {
					now = append(now, alert{rule.Name(), active.Labels.Map(), active.Annotations.Map()})
				}
			}
		}
		firing = append(firing, now)
	}
	return json.NewEncoder(out).Encode(firing)
}

// load reads and checks a file of rule groups; recording rules are refused, since no file has any.
func load(path string) ([]*rules.AlertingRule, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	groups, problems := rulefmt.Parse(text, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s: %w", path, errors.Join(problems...))
	}
	var all []*rules.AlertingRule
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" {
				return nil, fmt.Errorf("%s: %s is no alert", path, rule.Record)
			}
			expression, err := parser.NewParser(parser.Options{}).ParseExpr(rule.Expr)
			if err != nil {
				return nil, err
			}
			all = append(all, rules.NewAlertingRule(rule.Alert, expression, time.Duration(rule.For), time.Duration(rule.KeepFiringFor),
				labels.FromMap(rule.Labels), labels.FromMap(rule.Annotations), labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler)))
		}
	}
	return all, nil
}

// store keeps every sample of an instance's scrape under the time `at`.
func store(ctx context.Context, db *tsdb.DB, instance, text string, at time.Time) error {
	series := textparse.NewOpenMetricsParser([]byte(text), labels.NewSymbolTable())
	appender := db.Appender(ctx)
	for {
		entry, err := series.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the scrape of %s at %s is no OpenMetrics: %w", instance, at.UTC().Format(time.RFC3339), err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		_, _, value := series.Series()
		var set labels.Labels
		series.Labels(&set)
		set = labels.NewBuilder(set).Set("instance", instance).Labels()
		if _, err := appender.Append(0, set, at.UnixMilli(), value); err != nil {
			return err
		}
	}
	return appender.Commit()
}
