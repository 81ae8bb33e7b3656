package main

import "syscall"

// diesWithParent makes the kernel kill the command when underling dies, whatever kills underling.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
