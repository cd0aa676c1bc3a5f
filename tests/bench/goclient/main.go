// A client with a fixed pool of workers over net/http's default transport: reads {urls, workers, rounds} from its
// standard input, asks every URL once per round, and prints wall and CPU seconds of each round.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

type task struct {
	URLs    []string `json:"urls"`
	Workers int      `json:"workers"`
	Rounds  int      `json:"rounds"`
}

type times struct {
	Wall []float64 `json:"wall"`
	CPU  []float64 `json:"cpu"`
}

func cpu() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

func ask(url, tag string) (string, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if tag != "" {
		request.Header.Set("If-None-Match", tag)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode == http.StatusOK {
		var report any
		err = json.Unmarshal(body, &report)
	}
	return response.Header.Get("ETag"), err
}

func sweep(work task, tags []string) ([]string, error) {
	found := make([]string, len(work.URLs))
	next := make(chan int)
	failed := make(chan error, work.Workers)
	var workers sync.WaitGroup
	for range work.Workers {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for index := range next {
				tag := ""
				if tags != nil {
					tag = tags[index]
				}
				var err error
				if found[index], err = ask(work.URLs[index], tag); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		}()
	}
	for index := range work.URLs {
		next <- index
	}
	close(next)
	workers.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
		return found, nil
	}
}

func run() error {
	var work task
	if err := json.NewDecoder(os.Stdin).Decode(&work); err != nil {
		return err
	}
	tags, err := sweep(work, nil) // connections
	if err != nil {
		return err
	}
	answer := map[string]*times{"changed": {}, "unchanged": {}}
	for kind, measured := range answer {
		for range work.Rounds {
			var known []string
			if kind == "unchanged" {
				known = tags
			}
			began, used := time.Now(), cpu()
			if _, err := sweep(work, known); err != nil {
				return err
			}
			measured.Wall = append(measured.Wall, time.Since(began).Seconds())
			measured.CPU = append(measured.CPU, cpu()-used)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
