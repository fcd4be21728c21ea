// Package hubserve is a Hugging Face Hub for one machine: the part of the Hub's
// HTTP interface that hubtool and the Python libraries use to read and to write
// repositories, with content on disk or in memory. It needs only the standard
// library.
//
// [New] returns an http.Handler. What it knows:
//
//	reading   info, tree, paths-info, refs, commits, resolve with ranges, search
//	writing   create, delete, move, settings, branches, tags, pull requests,
//	          preupload, LFS (one piece or several), Xet, commits
//
// # On disk
//
//	<dir>/blobs/<2 hex>/<sha256>                        content, written once
//	<dir>/repos/models/<owner>/<name>/repo.json         branches, tags, pull requests
//	<dir>/repos/models/<owner>/<name>/commits/<id>.json one commit, all its files
//	<dir>/moved.json                                    old id → new id
//	<dir>/xorbs/<2 hex>/<hash>.json                     where the chunks of a Xet upload are
//	<dir>/incoming/                                     uploads in flight
//	<dir>/lock                                          held by the process that serves it
//
// Every file appears complete, by rename, after it is on the disk. A commit is
// content first, then its record, then repo.json, whose rename is the moment it
// happens; a crash before leaves the old state, and at most unused content,
// which is removed a day later, when the Hub is opened.
//
// # Xet
//
// The Hub's newest storage has its own protocol for uploads, which the Python client
// insists on for every file that preupload calls large, if its hf_xet package is
// installed; it does not fall back to LFS. So that protocol's receiving half is
// here as well. Content arrives in compressed chunks and is stored as the plain
// file. Downloads never need Xet.
package hubserve
