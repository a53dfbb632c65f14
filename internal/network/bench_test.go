package network

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/id"
)

// BenchmarkConnect times Connect and Disconnect of a container with one published port, beside none and a thousand others.
func BenchmarkConnect(b *testing.B) {
	for _, others := range []int{0, 1000} {
		b.Run(fmt.Sprintf("beside-%d-ports", others), func(b *testing.B) {
			s := open(b, newMemory())
			for i := 0; i < others; i += 100 {
				q := Request{Endpoints: on("bridge")}
				for j := range 100 {
					q.Ports = append(q.Ports, Port{HostPort: uint16(20000 + i + j), ContainerPort: 80})
				}
				connect(b, s, q)
			}
			var up, down []time.Duration
			for b.Loop() {
				q := Request{ContainerID: id.New(), Endpoints: on("bridge"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}}
				t0 := time.Now()
				box, err := s.Connect(context.Background(), q)
				if err != nil {
					b.Fatal(err)
				}
				t1 := time.Now()
				box.Netns.Close()
				if err := s.Disconnect(context.Background(), q.ContainerID); err != nil {
					b.Fatal(err)
				}
				up, down = append(up, t1.Sub(t0)), append(down, time.Since(t1))
			}
			b.ReportMetric(median(up), "ms-connect")
			b.ReportMetric(median(down), "ms-disconnect")
		})
	}
}

func median(l []time.Duration) float64 {
	slices.Sort(l)
	return float64(l[len(l)/2].Microseconds()) / 1000
}

// BenchmarkEightAtATime is the way a machine full of containers starts.
func BenchmarkEightAtATime(b *testing.B) {
	s := open(b, newMemory())
	b.SetParallelism(4) // times GOMAXPROCS
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			q := Request{ContainerID: id.New(), Endpoints: on("bridge"), Ports: []Port{{ContainerPort: 80}}}
			box, err := s.Connect(context.Background(), q)
			if err != nil {
				b.Error(err)
				return
			}
			box.Netns.Close()
			if err := s.Disconnect(context.Background(), q.ContainerID); err != nil {
				b.Error(err)
			}
		}
	})
}
