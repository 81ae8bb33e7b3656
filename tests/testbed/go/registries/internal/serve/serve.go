// Package serve runs a handler the way the testbed wants every small server of its own to run: on a loopback port that it
// prints, with TLS where it is asked for, and with one line of access log for each request, in the form of Apache's common log,
// written before the answer goes out, so that whoever has the answer finds the line.
package serve

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Options are the flags that every server shares.
type Options struct {
	Addr      string
	TLSCert   string
	TLSKey    string
	AccessLog string
}

// Flags declares the shared flags.
func Flags(fs *flag.FlagSet) *Options {
	o := &Options{}
	fs.StringVar(&o.Addr, "addr", "127.0.0.1:0", "`address` to listen on; port 0 takes a free one")
	fs.StringVar(&o.TLSCert, "tls-cert", "", "PEM `file` of the certificate chain; with it, the server speaks TLS and HTTP/2")
	fs.StringVar(&o.TLSKey, "tls-key", "", "PEM `file` of the certificate's key")
	fs.StringVar(&o.AccessLog, "access-log", "", "`file` to which the access log is appended; standard error where absent")
	return o
}

// Run serves until the process ends. Its first line of output is "listening on ADDRESS".
func Run(o *Options, handler http.Handler) error {
	var log io.Writer = os.Stderr
	if o.AccessLog != "" {
		file, err := os.OpenFile(o.AccessLog, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer file.Close()
		log = file
	}
	listener, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	server := &http.Server{Handler: &logged{next: handler, log: log}, ReadHeaderTimeout: time.Minute}
	if o.TLSCert != "" {
		return server.ServeTLS(listener, o.TLSCert, o.TLSKey)
	}
	return server.Serve(listener)
}

// logged writes one line for each request that it passes on.
type logged struct {
	next http.Handler
	mu   sync.Mutex
	log  io.Writer
}

func (l *logged) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := &answer{ResponseWriter: w, status: func(code int) { l.write(r, code) }}
	l.next.ServeHTTP(answer, r)
	answer.begin(http.StatusOK)
}

func (l *logged) write(r *http.Request, code int) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.log, "%s - - [%s] %q %d -\n", host, time.Now().UTC().Format("02/Jan/2006:15:04:05 -0700"),
		r.Method+" "+r.RequestURI+" "+r.Proto, code)
}

// answer calls status once, right before the header goes out.
type answer struct {
	http.ResponseWriter
	begun  bool
	status func(code int)
}

func (a *answer) begin(code int) {
	if a.begun || code < http.StatusOK {
		return
	}
	a.begun = true
	a.status(code)
}

func (a *answer) WriteHeader(code int) {
	a.begin(code)
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (int, error) {
	a.begin(http.StatusOK)
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
