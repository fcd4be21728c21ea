package hub

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
)

// A file that is fetched in ranges has holes while it grows. Which parts of it have
// come is written behind its end, in the same file, so that neither can be lost
// without the other:
//
//	magic, number of slots, base          8 bytes each, little endian
//	from, to, have                        for each slot
//
// A slot describes a part: of the bytes from..to the first have are there. Parts are
// begun in the order of the file, and a slot is used again only when everything up to
// the end of its part is there. So all slots together describe one stretch of the
// file, before which it is complete; if no slot was used yet, that is up to base.
// Bytes are written before they are noted, which is enough for a process that is
// killed. For a machine that loses power there is the hash of the whole.
type rangeMap struct {
	todo   []*part  // in order
	unused chan int // slots
}

const (
	rangeMagic = 0x317365676e617268 // "hranges1"
	slotBytes  = 24
	maxSlots   = 4096
)

func slotAt(size int64, slot int) int64 { return size + slotBytes*int64(1+slot) }

// openRanges divides what p lacks into parts of partSize bytes, after those that have
// been begun already, and writes the map.
func (p *partial) openRanges(jobs int, partSize int64) error {
	if p.ranges != nil { // from an earlier try of this run
		p.begun = p.ranges.begun(p.pos)
	}
	m := &rangeMap{todo: p.begun}
	slots := jobs + len(p.begun)
	m.unused = make(chan int, slots)
	image := appendInts(nil, rangeMagic, int64(slots), p.pos)
	from := p.pos
	for i := range slots {
		if i < len(p.begun) {
			pt := p.begun[i]
			pt.slot, from = i, pt.to
			image = appendInts(image, pt.from, pt.to, pt.have)
			continue
		}
		m.unused <- i
		image = appendInts(image, 0, 0, 0)
	}
	for ; from < p.size; from += partSize {
		m.todo = append(m.todo, &part{from: from, to: min(from+partSize, p.size), slot: -1})
	}
	p.mapped, p.ranges, p.begun = true, m, nil
	if err := p.file.Truncate(p.size + int64(len(image))); err != nil {
		return err
	}
	_, err := p.file.WriteAt(image, p.size)
	return err
}

func appendInts(b []byte, values ...int64) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// claim gives a part a slot. There is one for each job, unless an earlier part has
// failed, which keeps its own.
func (m *rangeMap) claim(ctx context.Context, p *partial, pt *part) error {
	if pt.slot >= 0 {
		return nil
	}
	select {
	case pt.slot = <-m.unused:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := p.file.WriteAt(appendInts(nil, pt.from, pt.to, 0), slotAt(p.size, pt.slot))
	return err
}

// begun are the parts from pos on that have a slot.
func (m *rangeMap) begun(pos int64) (list []*part) {
	for _, pt := range m.todo {
		if pt.slot >= 0 && pt.to > pos {
			list = append(list, &part{from: pt.from, to: pt.to, have: pt.have})
		}
	}
	return list
}

// loadRanges reads the map that an earlier run left in a file of a size, and says up
// to where the file is complete. A map that contradicts itself is none.
func (p *partial) loadRanges(size int64) (complete int64, ok bool) {
	header := make([]byte, slotBytes)
	if _, err := p.file.ReadAt(header, p.size); err != nil || int64(binary.LittleEndian.Uint64(header)) != rangeMagic {
		return 0, false
	}
	slots := int64(binary.LittleEndian.Uint64(header[8:]))
	complete = int64(binary.LittleEndian.Uint64(header[16:]))
	if slots < 1 || slots > maxSlots || size != slotAt(p.size, int(slots)) || complete < 0 || complete > p.size {
		return 0, false
	}
	image := make([]byte, slots*slotBytes)
	if _, err := p.file.ReadAt(image, slotAt(p.size, 0)); err != nil {
		return 0, false
	}
	var list []*part
	for b := image; len(b) > 0; b = b[slotBytes:] {
		at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[i:])) }
		pt := &part{from: at(0), to: at(8), have: at(16)}
		if pt.to == 0 {
			continue
		}
		if pt.from < 0 || pt.to <= pt.from || pt.to > p.size || pt.have < 0 || pt.have > pt.to-pt.from {
			return 0, false
		}
		list = append(list, pt)
	}
	slices.SortFunc(list, func(a, b *part) int { return cmp.Compare(a.from, b.from) })
	for i, pt := range list {
		if i == 0 {
			complete = pt.from
		} else if pt.from != list[i-1].to {
			return 0, false
		}
	}
	for len(list) > 0 && list[0].have == list[0].to-list[0].from {
		complete, list = list[0].to, list[1:]
	}
	p.mapped, p.begun = true, list
	return complete, true
}

// follow hashes bytes that were written at an offset, and before them what is not
// hashed yet.
func (p *partial) follow(b []byte, at int64) error {
	if err := p.advance(at); err != nil {
		return err
	}
	if p.hash != nil {
		p.hash.Write(b)
	}
	p.pos = at + int64(len(b))
	p.tick()
	return nil
}

// advance hashes what has come, up to an offset.
func (p *partial) advance(to int64) error {
	if p.hash == nil || p.pos == to {
		p.pos = to
		return nil
	}
	buf := make([]byte, pieceSize)
	for p.pos < to {
		n, err := p.file.ReadAt(buf[:min(int64(len(buf)), to-p.pos)], p.pos)
		p.hash.Write(buf[:n])
		p.pos += int64(n)
		p.tick()
		if p.pos < to && err != nil {
			return err
		}
	}
	return nil
}

// place is the sink of a part of a file.
type place struct {
	p       *partial
	part    *part
	buf     []byte
	filled  int
	fetched int64
}

func (s *place) room() []byte { return s.buf[s.filled:] }

func (s *place) took(n int) error {
	s.filled += n
	s.fetched += int64(n)
	if s.filled == len(s.buf) || s.part.have == s.part.to-s.part.from {
		return s.flush()
	}
	return nil
}

// flush writes what has come, then notes it, and hashes it if it is this part's turn.
func (s *place) flush() error {
	if s.filled == 0 {
		return nil
	}
	piece, at := s.buf[:s.filled], s.part.from+s.part.have-int64(s.filled)
	if _, err := s.p.file.WriteAt(piece, at); err != nil {
		return err
	}
	s.filled = 0
	if _, err := s.p.file.WriteAt(appendInts(nil, s.part.have), slotAt(s.p.size, s.part.slot)+16); err != nil {
		return err
	}
	select {
	case <-s.part.turn:
		return s.p.follow(piece, at)
	default:
		return nil
	}
}
