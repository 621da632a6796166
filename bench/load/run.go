package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Plan is what to do: all clients at once, each on connections of its own.
type Plan struct {
	// Clients read again and again for so long; 0: once each.
	Seconds float64  `json:"seconds"`
	Clients []Client `json:"clients"`
	// Bodies are hashed, and must be what their URLs' last segments say.
	Verify bool `json:"verify"`
}

// Client reads URLs one after the other.
type Client struct {
	URLs  []string `json:"urls"`
	Range string   `json:"range"` // header, optional
	Rate  float64  `json:"rate"`  // bytes a second; 0: as fast as they come
}

// Result is of all clients, times in seconds.
type Result struct {
	Seconds  float64  `json:"seconds"` // until the last client was done
	Bytes    int64    `json:"bytes"`
	Requests int      `json:"requests"`
	Clients  []Served `json:"clients"`
}

// Served is what one client saw.
type Served struct {
	Bytes     int64   `json:"bytes"`
	Requests  int     `json:"requests"`
	FirstByte float64 `json:"firstByte"` // of the first body, since before it connected
	Seconds   float64 `json:"seconds"`
}

func run(plan Plan) (Result, error) {
	started := time.Now()
	var end time.Time
	if plan.Seconds > 0 {
		end = started.Add(time.Duration(plan.Seconds * float64(time.Second)))
	}
	type outcome struct {
		index  int
		served Served
		err    error
	}
	outcomes := make(chan outcome)
	for index, client := range plan.Clients {
		go func() {
			r := &reader{client: client, end: end, verify: plan.Verify, lines: map[string]*line{}, buffer: make([]byte, 256<<10)}
			err := r.read(started)
			r.served.Seconds = time.Since(started).Seconds()
			outcomes <- outcome{index, r.served, err}
		}()
	}
	result := Result{Clients: make([]Served, len(plan.Clients))}
	var failure error
	for range plan.Clients {
		o := <-outcomes
		failure = errors.Join(failure, o.err)
		result.Clients[o.index] = o.served
		result.Bytes += o.served.Bytes
		result.Requests += o.served.Requests
	}
	result.Seconds = time.Since(started).Seconds()
	return result, failure
}

type line struct {
	conn   net.Conn
	reader *bufio.Reader
}

type reader struct {
	client Client
	end    time.Time // zero: once
	verify bool
	lines  map[string]*line
	buffer []byte
	served Served
}

func (r *reader) read(started time.Time) error {
	for {
		for _, target := range r.client.URLs {
			err := r.get(target, started, 0)
			if !r.end.IsZero() && (errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(r.end)) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", strings.SplitN(target, "?", 2)[0], err)
			}
		}
		if r.end.IsZero() {
			return nil
		}
	}
}

func (r *reader) get(target string, started time.Time, redirects int) error {
	parsed, err := url.Parse(target)
	if err != nil {
		return err
	}
	kept := r.lines[parsed.Host] != nil
	l, err := r.line(parsed)
	if err != nil {
		return err
	}
	request := "GET " + parsed.RequestURI() + " HTTP/1.1\r\nHost: " + parsed.Host + "\r\n"
	if r.client.Range != "" {
		request += "Range: " + r.client.Range + "\r\n"
	}
	_, err = io.WriteString(l.conn, request+"\r\n")
	if err == nil {
		_, err = l.reader.Peek(1)
	}
	if err != nil && kept && !errors.Is(err, os.ErrDeadlineExceeded) {
		// As net/http does: the other end had closed a kept connection before it saw the request.
		l.conn.Close()
		delete(r.lines, parsed.Host)
		return r.get(target, started, redirects)
	}
	if err != nil {
		return err
	}
	response, err := http.ReadResponse(l.reader, nil)
	if err != nil {
		return err
	}
	switch response.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusTemporaryRedirect:
		location, err := response.Location()
		if err != nil || redirects == 3 {
			return fmt.Errorf("redirected to %q", response.Header.Get("Location"))
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		return r.get(location.String(), started, redirects+1)
	default:
		body, _ := io.ReadAll(io.LimitReader(response.Body, 500)) // only to say more
		return fmt.Errorf("%s %s", response.Status, body)
	}
	if err := r.body(response, parsed, started); err != nil {
		return err
	}
	r.served.Requests++
	if response.Close {
		delete(r.lines, parsed.Host)
		return l.conn.Close()
	}
	return nil
}

func (r *reader) line(target *url.URL) (*line, error) {
	host := target.Host
	if l, ok := r.lines[host]; ok {
		return l, nil
	}
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return nil, err
	}
	if target.Scheme == "https" {
		// Authorities beside the system's: the environment's SSL_CERT_FILE.
		conn = tls.Client(conn, &tls.Config{ServerName: target.Hostname()})
	}
	if err := conn.SetDeadline(r.end); err != nil {
		return nil, err
	}
	// Small, so that bodies are read past it, straight into the large buffer.
	l := &line{conn, bufio.NewReaderSize(conn, 4096)}
	r.lines[host] = l
	return l, nil
}

func (r *reader) body(response *http.Response, target *url.URL, started time.Time) error {
	var sum hash.Hash
	var slow *pace
	buffer := r.buffer
	if r.verify {
		sum = sha256.New()
	}
	if r.client.Rate > 0 {
		slow = &pace{rate: r.client.Rate}
		buffer = buffer[:32<<10]
	}
	var size int64
	for {
		n, err := response.Body.Read(buffer)
		if n > 0 && r.served.Bytes == 0 {
			r.served.FirstByte = time.Since(started).Seconds()
		}
		size += int64(n)
		r.served.Bytes += int64(n)
		if sum != nil {
			sum.Write(buffer[:n])
		}
		if slow != nil {
			slow.wait(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", size, err)
		}
	}
	if response.ContentLength >= 0 && size != response.ContentLength {
		return fmt.Errorf("%d bytes instead of %d", size, response.ContentLength)
	}
	if sum != nil && !strings.HasSuffix(target.Path, hex.EncodeToString(sum.Sum(nil))) {
		return errors.New("wrong bytes")
	}
	return nil
}
