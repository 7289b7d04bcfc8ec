// SPDX-License-Identifier: MIT OR Apache-2.0

// Draws by Go's crypto/rand or math/rand/v2, whichever is asked for: each line on standard
// input is answered with one on standard output, 16 bytes in hexadecimal.
package main

import (
	"bufio"
	crypto "crypto/rand"
	"fmt"
	math "math/rand/v2"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"
)

func fromCrypto() string {
	var bytes [16]byte
	crypto.Read(bytes[:]) // It never fails.
	return fmt.Sprintf("%x", bytes)
}

func fromMath() string {
	return fmt.Sprintf("%016x%016x", math.Uint64(), math.Uint64())
}

// A source for math/rand/v2 that is seeded anew when the generation has changed: it looks before
// each draw and after it. Without the device it never is. One goroutine may use it at a time, as
// any source.
type heedful struct {
	generation *uint32
	seen       uint32
	source     *math.ChaCha8
}

func newHeedful() *heedful {
	node, err := syscall.Open("/dev/sysgenid", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err == syscall.ENOENT {
		return &heedful{generation: new(uint32)}
	}
	if err != nil {
		panic(err)
	}
	defer syscall.Close(node) // The mapping stays.
	page, err := syscall.Mmap(node, 0, os.Getpagesize(), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return &heedful{generation: (*uint32)(unsafe.Pointer(&page[0]))}
}

func (h *heedful) Uint64() uint64 {
	for {
		now := atomic.LoadUint32(h.generation)
		if h.source == nil || now != h.seen {
			var seed [32]byte
			crypto.Read(seed[:])
			h.source, h.seen = math.NewChaCha8(seed), now
		}
		drawn := h.source.Uint64()
		if atomic.LoadUint32(h.generation) == h.seen {
			return drawn
		}
	}
}

func main() {
	random := math.New(newHeedful())
	sources := map[string]func() string{
		"crypto": fromCrypto,
		"math":   fromMath,
		"heedful": func() string {
			return fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64())
		},
	}
	if len(os.Args) != 2 || sources[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "Usage: %s crypto|math|heedful\n", os.Args[0])
		os.Exit(2)
	}
	draw := sources[os.Args[1]]
	for questions := bufio.NewScanner(os.Stdin); questions.Scan(); {
		fmt.Println(draw())
	}
}
