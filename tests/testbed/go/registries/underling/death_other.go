//go:build !linux

package main

import "syscall"

// diesWithParent has no equal outside of Linux: there the command outlives underling where underling itself is killed.
func diesWithParent() *syscall.SysProcAttr { return nil }
