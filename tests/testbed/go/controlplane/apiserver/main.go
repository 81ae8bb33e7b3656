// Command apiserver is kube-apiserver with etcd inside, in one process.
//
//	apiserver --etcd-data-dir=DIR [flags of kube-apiserver]
//
// etcd listens on a free port of the loopback address and does not fsync: its data outlives this process, not the machine.
package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// etcdStart bounds how long etcd may take to become ready.
const etcdStart = 30 * time.Second

func main() {
	dataDir, flags := splitDataDir(os.Args[1:])
	if dataDir == "" {
		// Also the way to ask for --version and --help.
		os.Args = append(os.Args[:1], flags...)
		os.Exit(cli.Run(app.NewAPIServerCommand()))
	}
	endpoint, err := startEtcd(dataDir)
	if err != nil {
		fmt.Fprintf(os.Stderr, "apiserver: etcd in %s: %v\n", dataDir, err)
		os.Exit(1)
	}
	os.Args = append(append(os.Args[:1:1], "--etcd-servers="+endpoint), flags...)
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}

// splitDataDir takes the one flag that is not kube-apiserver's out of the arguments.
func splitDataDir(args []string) (dataDir string, rest []string) {
	const name = "--etcd-data-dir="
	for _, arg := range args {
		if value, found := strings.CutPrefix(arg, name); found {
			dataDir = value
		} else {
			rest = append(rest, arg)
		}
	}
	return dataDir, rest
}

// startEtcd starts a single member and returns the address that its clients use.
func startEtcd(dataDir string) (string, error) {
	loopback := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg := embed.NewConfig()
	cfg.Dir = dataDir
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{"stderr"}
	cfg.UnsafeNoFsync = true
	cfg.ListenClientUrls = []url.URL{loopback}
	cfg.ListenPeerUrls = []url.URL{loopback}

	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return "", err
	}
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return "", err
	case <-time.After(etcdStart):
		server.Close()
		return "", fmt.Errorf("not ready after %s", etcdStart)
	}
	return "http://" + server.Clients[0].Addr().String(), nil
}
