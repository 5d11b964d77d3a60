/* chunker._kernel: the binding of scan.h, in the limited API. Types and meaning: _kernel.pyi. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#include "scan.h"

#define GIL_THRESHOLD (64 * 1024) /* below it, a release costs more than the scan */
#define STACK_CUTS 64

_Static_assert(sizeof(struct fg_chunker) == 96, "the packed state of kernels.py is read as it is");

typedef struct {
    PyObject_HEAD
    struct fg_chunker chunker;
    const struct fg_kernel *kernel;
} Cutter;

static PyObject *cutter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    const char *state, *name;
    Py_ssize_t length;
    struct fg_chunker chunker;
    const struct fg_kernel *kernel;
    size_t rank = 0;

    if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Cutter takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "y#s:Cutter", &state, &length, &name))
        return NULL;
    if (length != (Py_ssize_t)sizeof chunker) {
        PyErr_Format(PyExc_ValueError, "the state must be %zu bytes, not %zd", sizeof chunker, length);
        return NULL;
    }
    memcpy(&chunker, state, sizeof chunker);
    if (!fg_valid(&chunker)) {
        PyErr_SetString(PyExc_ValueError, "the state's sizes are out of range");
        return NULL;
    }
    while ((kernel = fg_kernel(rank)) != NULL && strcmp(kernel->name, name) != 0)
        rank++;
    if (kernel == NULL) {
        PyErr_Format(PyExc_ValueError, "no kernel named '%s' in this build that this host can run", name);
        return NULL;
    }

    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Cutter *self = (Cutter *)alloc(type, 0);
    if (self != NULL) {
        self->chunker = chunker;
        self->kernel = kernel;
    }
    return (PyObject *)self;
}

static void cutter_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Reads *self but never writes it: calls from several threads at once need no lock. */
static PyObject *cutter_cuts(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    const Cutter *cutter = (const Cutter *)self;
    Py_buffer view;
    uint64_t few[STACK_CUTS];
    uint64_t *cuts = few;
    PyObject *result = NULL;

    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "cuts() takes 3 arguments (buffer, final, scanned), not %zd", count);
        return NULL;
    }
    int final = PyObject_IsTrue(args[1]);
    if (final < 0)
        return NULL;
    size_t scanned = PyLong_AsSize_t(args[2]);
    if (scanned == (size_t)-1 && PyErr_Occurred())
        return NULL;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;

    size_t n = (size_t)view.len, found;
    size_t room = fg_room(&cutter->chunker, n);
    if (room > STACK_CUTS) {
        cuts = PyMem_Malloc(room * sizeof *cuts);
        if (cuts == NULL) {
            PyErr_NoMemory();
            goto done;
        }
    }
    if (n >= GIL_THRESHOLD) {
        Py_BEGIN_ALLOW_THREADS
        found = fg_cuts(&cutter->chunker, cutter->kernel, view.buf, n, final, &scanned, cuts);
        Py_END_ALLOW_THREADS
    } else {
        found = fg_cuts(&cutter->chunker, cutter->kernel, view.buf, n, final, &scanned, cuts);
    }
    result = Py_BuildValue("y#n", (const char *)cuts, (Py_ssize_t)(found * sizeof *cuts), (Py_ssize_t)scanned);
    if (cuts != few)
        PyMem_Free(cuts);
done:
    PyBuffer_Release(&view);
    return result;
}

static PyMethodDef cutter_methods[] = {
    {"cuts", (PyCFunction)(void (*)(void))cutter_cuts, METH_FASTCALL,
     "cuts($self, buffer, final, scanned, /)\n--\n\nCut a buffer; see chunker.Chunker.cuts."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot cutter_slots[] = {
    {Py_tp_doc, "Cutter(state, kernel, /)\n--\n\nA key and sizes bound to one kernel; immutable."},
    {Py_tp_new, cutter_new},
    {Py_tp_dealloc, cutter_dealloc},
    {Py_tp_methods, cutter_methods},
    {0, NULL},
};

static PyType_Spec cutter_spec = {
    .name = "chunker._kernel.Cutter",
    .basicsize = sizeof(Cutter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = cutter_slots,
};

static int kernel_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &cutter_spec, NULL);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    if (failed < 0)
        return -1;

    Py_ssize_t count = 0;
    while (fg_kernel((size_t)count) != NULL)
        count++;
    PyObject *names = PyTuple_New(count);
    if (names == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyUnicode_FromString(fg_kernel((size_t)i)->name);
        if (name == NULL || PyTuple_SetItem(names, i, name) < 0) { /* SetItem takes the reference, even if it fails */
            Py_DECREF(names);
            return -1;
        }
    }
    failed = PyModule_AddObjectRef(module, "KERNELS", names);
    Py_DECREF(names);
    return failed;
}

static PyModuleDef_Slot kernel_slots[] = {
    {Py_mod_exec, kernel_exec},
    {0, NULL},
};

static struct PyModuleDef kernel_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "chunker._kernel",
    .m_doc = "The compiled cutting kernels.",
    .m_slots = kernel_slots,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&kernel_module);
}
