// Command underling runs another command and sees to it that it never outlives whoever started it.
//
//	underling COMMAND [ARGUMENTS]
//
// Standard input is the leash. When it closes, or at the line "term", the command gets SIGTERM, and SIGKILL if that did not end
// it; at the line "kill" it gets SIGKILL at once; "pause" and "resume" are SIGSTOP and SIGCONT. If underling itself dies, the
// kernel kills the command. Output passes through, and so does the exit status (128 and the signal's number where a signal ended
// the command).
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// grace is how long a command may take to end after SIGTERM.
const grace = 20 * time.Second

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: underling COMMAND [ARGUMENTS]")
		os.Exit(2)
	}
	// The kernel's promise to kill the command holds for the life of the thread that started it.
	runtime.LockOSThread()
	command := exec.Command(os.Args[1], os.Args[2:]...)
	command.Stdout = os.Stdout
	command.Stderr = os.Stderr
	command.SysProcAttr = diesWithParent()
	if err := command.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "underling: %v\n", err)
		os.Exit(127)
	}
	go hold(command.Process)
	os.Exit(status(command.Wait()))
}

// hold follows the leash until the command is to end.
func hold(process *os.Process) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "pause":
			_ = process.Signal(syscall.SIGSTOP)
		case "resume":
			_ = process.Signal(syscall.SIGCONT)
		case "kill":
			_ = process.Kill()
			return
		case "term":
			end(process)
			return
		}
	}
	end(process)
}

func end(process *os.Process) {
	_ = process.Signal(syscall.SIGTERM)
	time.Sleep(grace)
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
