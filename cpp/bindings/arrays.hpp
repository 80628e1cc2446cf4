// Arguments as the kernels take them: arrays contiguous, of the wanted precision and shape; names as numbers.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mfld::bindings {

namespace py = pybind11;

inline std::string text(const std::vector<py::ssize_t>& shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i)
    out += (i ? ", " : "") + (shape[i] < 0 ? std::string("any") : std::to_string(shape[i]));
  return out + (shape.size() == 1 ? ",)" : ")");
}

// A contiguous array of the wanted type and shape; -1 stands for any extent.
template <class T>
const void* checked_as(const py::array& a, const char* name, std::vector<py::ssize_t> shape) {
  if (!py::isinstance<py::array_t<T>>(a))
    throw py::type_error(std::string(name) + " must be " + py::str(py::dtype::of<T>()).template cast<std::string>() +
                         ", got " + py::str(a.dtype()).cast<std::string>());
  const std::vector<py::ssize_t> got(a.shape(), a.shape() + a.ndim());
  bool fits = got.size() == shape.size();
  for (std::size_t i = 0; fits && i < got.size(); ++i) fits = shape[i] < 0 || shape[i] == got[i];
  if (!fits) throw py::value_error(std::string(name) + " must have shape " + text(shape) + ", got " + text(got));
  if (!(a.flags() & py::array::c_style)) throw py::value_error(std::string(name) + " must be C-contiguous");
  return a.data();
}

// The same of the wanted precision.
inline const void* checked(const py::array& a, const char* name, bool want_double, std::vector<py::ssize_t> shape) {
  return want_double ? checked_as<double>(a, name, std::move(shape)) : checked_as<float>(a, name, std::move(shape));
}

inline void* checked_writable(py::array& a, const char* name, bool want_double, std::vector<py::ssize_t> shape) {
  checked(a, name, want_double, std::move(shape));
  return a.mutable_data();  // throws ValueError for a read-only array
}

inline bool precision(const py::array& a, const char* name) {
  if (py::isinstance<py::array_t<double>>(a)) return true;
  if (py::isinstance<py::array_t<float>>(a)) return false;
  throw py::type_error(std::string(name) + " must be float32 or float64, got " +
                       py::str(a.dtype()).cast<std::string>());
}

inline py::array empty(bool want_double, std::vector<py::ssize_t> shape) {
  return want_double ? py::array(py::dtype::of<double>(), std::move(shape))
                     : py::array(py::dtype::of<float>(), std::move(shape));
}

inline void* needed(std::optional<py::array>& a, const char* name, bool want_double, std::vector<py::ssize_t> shape) {
  if (!a) throw py::value_error(std::string(name) + " is needed for this kind");
  return checked_writable(*a, name, want_double, std::move(shape));
}

// From a dtype: whether it is float64.
inline bool is_wide(const py::dtype& dtype) {
  const bool is_double = dtype.equal(py::dtype::of<double>());
  if (!is_double && !dtype.equal(py::dtype::of<float>())) throw py::type_error("dtype must be float32 or float64");
  return is_double;
}

// The place of a name among names.
template <std::size_t n>
inline std::int32_t index_of(const std::string& kind, const char* const (&names)[n], const char* what) {
  std::string known;
  for (std::size_t i = 0; i < n; ++i) {
    if (kind == names[i]) return static_cast<std::int32_t>(i);
    known.append(i ? ", " : "").append(names[i]);
  }
  throw py::value_error(std::string(what) + " must be one of " + known + ", got " + kind);
}

}  // namespace mfld::bindings
