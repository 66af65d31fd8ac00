// Package priority is a priority queue from which an element in the middle can be
// moved or removed in logarithmic time. The local queue and the simulation keep
// their timers in it.
package priority

import "container/heap"

// Element stores its own position. Set the position to -1 before the first Push;
// it is -1 again when the element has left the queue.
type Element interface{ Position() *int }

// Queue holds elements in the order of Before, which must be set. It is not safe
// for concurrent use.
type Queue[T Element] struct {
	Before func(a, b T) bool
	list   []T
}

// Len returns the number of elements.
func (q *Queue[T]) Len() int { return len(q.list) }

// At returns the element at a position; At(0) is the first one.
func (q *Queue[T]) At(position int) T { return q.list[position] }

// Put inserts an element, or moves it when its priority has changed.
func (q *Queue[T]) Put(e T) {
	if at := *e.Position(); at >= 0 {
		heap.Fix((*adapter[T])(q), at)
	} else {
		heap.Push((*adapter[T])(q), e)
	}
}

// Remove takes an element out, if it is in the queue.
func (q *Queue[T]) Remove(e T) {
	if at := *e.Position(); at >= 0 {
		heap.Remove((*adapter[T])(q), at)
	}
}

// Pop takes the first element out.
func (q *Queue[T]) Pop() T { return heap.Pop((*adapter[T])(q)).(T) }

// adapter is a heap.Interface.
type adapter[T Element] Queue[T]

func (a *adapter[T]) Len() int           { return len(a.list) }
func (a *adapter[T]) Less(i, j int) bool { return a.Before(a.list[i], a.list[j]) }
func (a *adapter[T]) Swap(i, j int) {
	a.list[i], a.list[j] = a.list[j], a.list[i]
	*a.list[i].Position(), *a.list[j].Position() = i, j
}

func (a *adapter[T]) Push(x any) {
	e := x.(T)
	*e.Position() = len(a.list)
	a.list = append(a.list, e)
}

func (a *adapter[T]) Pop() any {
	last := len(a.list) - 1
	e := a.list[last]
	clear(a.list[last:])
	a.list = a.list[:last]
	*e.Position() = -1
	return e
}
