// Command lua runs a script on objects as Argo CD does: with gopher-lua, and with no more of Lua's library than Argo CD gives to
// scripts from its configuration.
//
//	lua SCRIPT.lua < objects.json
//
// The objects are a JSON list; each becomes the global `obj` of a run of its own. It prints the list of what the runs returned.
// Lua has one empty table, so an empty object comes back as an empty list.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/yuin/gopher-lua"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "lua: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("say `lua SCRIPT.lua`, with a list of objects on standard input")
	}
	script, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var objects []any
	if err := json.NewDecoder(in).Decode(&objects); err != nil {
		return fmt.Errorf("the objects cannot be read: %w", err)
	}
	results := make([]any, 0, len(objects))
	for _, object := range objects {
		result, err := call(string(script), object)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		results = append(results, result)
	}
	return json.NewEncoder(out).Encode(results)
}

// call runs the script with one object and returns the table that it returned.
func call(script string, object any) (any, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	libraries := []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}, {lua.OsLibName, openClock}}
	for _, library := range libraries {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(library.open), Protect: true}, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("it returned %s instead of a table", state.Get(-1).Type())
	}
	return fromLua(table), nil
}

// openClock opens what Argo CD leaves of the library os: its clock.
func openClock(state *lua.LState) int {
	lua.OpenOs(state)
	full := state.GetGlobal(lua.OsLibName).(*lua.LTable)
	clock := state.NewTable()
	for _, name := range []string{"date", "time"} {
		clock.RawSetString(name, full.RawGetString(name))
	}
	state.SetGlobal(lua.OsLibName, clock)
	return 0
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.NewTable()
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}

func fromLua(value lua.LValue) any {
	switch value := value.(type) {
	case lua.LBool:
		return bool(value)
	case lua.LNumber:
		return float64(value)
	case lua.LString:
		return string(value)
	case *lua.LTable:
		list, fields := []any{}, map[string]any{}
		value.ForEach(func(key, item lua.LValue) {
			if key.Type() == lua.LTNumber {
				list = append(list, fromLua(item))
			} else {
				fields[key.String()] = fromLua(item)
			}
		})
		if len(fields) > 0 {
			return fields
		}
		return list
	default:
		return nil
	}
}
