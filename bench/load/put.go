package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// PutPlan is what to write: each client PUTs documents of its own, one after the other, on one connection.
type PutPlan struct {
	Seconds       float64 `json:"seconds"`
	Clients       int     `json:"clients"`
	URL           string  `json:"url"`  // "%" stands for a number that no other request has
	Body          string  `json:"body"` // the same
	ContentType   string  `json:"contentType"`
	Authorization string  `json:"authorization"` // header, optional
}

func put(plan PutPlan) (Result, error) {
	started := time.Now()
	end := started.Add(time.Duration(plan.Seconds * float64(time.Second)))
	type outcome struct {
		requests int
		err      error
	}
	outcomes := make(chan outcome)
	for client := range plan.Clients {
		go func() {
			requests, err := putAll(plan, client, end)
			outcomes <- outcome{requests, err}
		}()
	}
	result := Result{Clients: []Served{}}
	var failure error
	for range plan.Clients {
		o := <-outcomes
		failure = errors.Join(failure, o.err)
		result.Requests += o.requests
	}
	result.Seconds = time.Since(started).Seconds()
	return result, failure
}

func putAll(plan PutPlan, client int, end time.Time) (int, error) {
	target, err := url.Parse(strings.ReplaceAll(plan.URL, "%", "0"))
	if err != nil {
		return 0, err
	}
	conn, err := net.Dial("tcp", target.Host)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	requests := 0
	for ; time.Now().Before(end); requests++ {
		number := fmt.Sprintf("%d", client*1_000_000+requests)
		path := strings.TrimPrefix(strings.ReplaceAll(plan.URL, "%", number), target.Scheme+"://"+target.Host)
		body := strings.ReplaceAll(plan.Body, "%", number)
		request := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n", path, target.Host, plan.ContentType, len(body))
		if plan.Authorization != "" {
			request += "Authorization: " + plan.Authorization + "\r\n"
		}
		if _, err := io.WriteString(conn, request+"\r\n"+body); err != nil {
			return requests, err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return requests, err
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return requests, err
		}
		if response.StatusCode != http.StatusCreated {
			return requests, fmt.Errorf("%s %s", response.Status, text)
		}
	}
	return requests, nil
}
