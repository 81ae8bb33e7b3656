// Command underling runs another command and sees to it that it never outlives whoever started it.
//
//	underling [-remove=FOLDER] COMMAND [ARGUMENTS]
//
// Standard input is the leash, a socket. The first line that underling writes to it is the command's process id. When it closes,
// or at the line "kill", the command gets SIGKILL; at the line "term" it gets SIGTERM, and SIGKILL if that did not end it; "pause"
// and "resume" are SIGSTOP and SIGCONT. Each line is answered with "ok" once the signal is sent. If underling itself dies, the
// kernel kills the command. Output passes through, and so does the exit status (128 and the signal's number where a signal ended
// the command). Where the leash closed, nobody is left to tidy up: then the folder of -remove goes too.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// grace is how long a command may take to end after SIGTERM.
const grace = 20 * time.Second

func main() {
	remove := flag.String("remove", "", "`folder` to remove if the leash closes while the command runs")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: underling [-remove=FOLDER] COMMAND [ARGUMENTS]")
		os.Exit(2)
	}
	// The kernel's promise to kill the command holds for the life of the thread that started it.
	runtime.LockOSThread()
	command := exec.Command(flag.Arg(0), flag.Args()[1:]...)
	command.Stdout = os.Stdout
	command.Stderr = os.Stderr
	command.SysProcAttr = diesWithParent()
	if err := command.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "underling: %v\n", err)
		os.Exit(127)
	}
	var orphan atomic.Bool
	go hold(command.Process, &orphan)
	code := status(command.Wait())
	if orphan.Load() && *remove != "" {
		_ = os.RemoveAll(*remove)
	}
	os.Exit(code)
}

// hold does what the leash says. Nobody at its other end makes an orphan, which does not live on.
func hold(process *os.Process, orphan *atomic.Bool) {
	fmt.Fprintln(os.Stdin, process.Pid)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "pause":
			_ = process.Signal(syscall.SIGSTOP)
		case "resume":
			_ = process.Signal(syscall.SIGCONT)
		case "kill":
			_ = process.Kill()
		case "term":
			_ = process.Signal(syscall.SIGTERM)
			time.AfterFunc(grace, func() { _ = process.Kill() })
		}
		fmt.Fprintln(os.Stdin, "ok")
	}
	orphan.Store(true)
	_ = process.Kill()
}

func status(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return 127
		}
		return 0
	}
	if wait, ok := exit.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return 128 + int(wait.Signal())
	}
	return exit.ExitCode()
}
