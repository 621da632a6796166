// Command load is the benchmark's client, and a line of bounded speed or of some length. One thread, so that it takes one core at most.
//
//	load run   < plan.json    reads what the plan says, prints what it saw as JSON
//	load put   < plan.json    writes what the plan says, prints how much as JSON
//	load shape -listen A -to B -rate BYTES [-each]    forwards connections; RATE is a second's, of all or of each
//	load delay -listen A -to B -round-trip TIME       forwards connections, as over a line of that length
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

func main() {
	runtime.GOMAXPROCS(1)
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func command() error {
	if len(os.Args) < 2 {
		return fmt.Errorf("what? run, put, shape or delay")
	}
	switch os.Args[1] {
	case "run":
		var plan Plan
		if err := json.NewDecoder(os.Stdin).Decode(&plan); err != nil {
			return err
		}
		result, err := run(plan)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(result)
	case "put":
		var plan PutPlan
		if err := json.NewDecoder(os.Stdin).Decode(&plan); err != nil {
			return err
		}
		result, err := put(plan)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(result)
	case "shape":
		flags := flag.NewFlagSet("shape", flag.ContinueOnError)
		listen := flags.String("listen", "", "host:port")
		to := flags.String("to", "", "host:port")
		rate := flags.Float64("rate", 0, "bytes a second, towards the client")
		each := flags.Bool("each", false, "that rate for each connection, not for all together")
		if err := flags.Parse(os.Args[2:]); err != nil {
			return err
		}
		return shape(*listen, *to, *rate, *each)
	case "delay":
		flags := flag.NewFlagSet("delay", flag.ContinueOnError)
		listen := flags.String("listen", "", "host:port")
		to := flags.String("to", "", "host:port")
		roundTrip := flags.Duration("round-trip", 100*time.Millisecond, "of the line")
		if err := flags.Parse(os.Args[2:]); err != nil {
			return err
		}
		return delay(*listen, *to, *roundTrip)
	}
	return fmt.Errorf("no command %q", os.Args[1])
}
