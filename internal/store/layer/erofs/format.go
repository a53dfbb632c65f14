package erofs

// The parts of the EROFS on-disk format that this writer uses; all numbers are little-endian (Documentation/filesystems/erofs.rst).
const (
	blockBits = 9
	blockSize = 1 << blockBits

	pageSize    = 4096 // images are a multiple of it: some readers take the first page whole
	superOffset = 1024
	superSize   = 128
	magic       = 0xE0F5E1E2
	slotSize    = 32 // inode numbers ("nid") count slots of this size from the start of the image
	rootOffset  = superOffset + superSize

	compatMtime     = 0x2 // inodes carry modification times, not change times
	incompatChunked = 0x4
	incompatDevices = 0x8

	deviceSize = 128 // one device slot; blocks is at 64, the place in a flat address space (0: none) at 68

	inodeSize    = 64 // the extended form
	extended     = 1  // bit 0 of i_format; bits 1-3 are the layout
	layoutPlain  = 0 << 1
	layoutInline = 2 << 1
	layoutChunk  = 4 << 1

	chunkIndexes = 0x20 // 8-byte chunk indexes, which name a device; the low 5 bits are log2(chunk size / block size)
	maxChunkBits = 31
	chunkSize    = 8

	direntSize  = 12
	xattrHeader = 12
	maxIcount   = 0xffff
	noBlock     = 0xffffffff
)

// File types in directory entries.
const (
	ftReg = iota + 1
	ftDir
	ftChr
	ftBlk
	ftFifo
	ftSock
	ftSymlink
)

// xattrPrefixes are the name prefixes that EROFS abbreviates by an index.
var xattrPrefixes = [...]struct {
	index  byte
	prefix string
}{
	{1, "user."}, {2, "system.posix_acl_access"}, {3, "system.posix_acl_default"}, {4, "trusted."}, {6, "security."},
}
