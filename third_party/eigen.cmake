# Provides the target mfld_eigen (headers only). No Eigen source is kept in this repository.
# Where the headers come from, first hit wins:
#   1. -DMFLD_EIGEN_DIR=<dir>    a folder the user gives (holds Eigen/Core)
#   2. the PyPI package cmeel-eigen, pinned in pyproject.toml's [build-system] requires
#   3. find_package(Eigen3)      a system package, such as Debian's libeigen3-dev
# Route 2 is copied into the build tree: pip deletes its isolated build environment afterwards, and an editable install
# rebuilds later from the same tree.
set(MFLD_EIGEN_PIN "3.4.1")
set(MFLD_EIGEN_MIN "3.4.0")
set(MFLD_EIGEN_DIR "" CACHE PATH "Folder holding Eigen/Core (overrides every other source)")

# SHA-256 over all headers of the pinned version: a line "<relative path> <sha256>" each, sorted.
set(MFLD_EIGEN_TREE_SHA256 "276ad5520099d67332f4d82f751189b1b96dac2cb0145502eacd3f2d2d7d64b1")

function(_mfld_tree_sha256 dir out)
  file(GLOB_RECURSE files RELATIVE "${dir}" "${dir}/Eigen/*")
  list(SORT files)
  set(all "")
  foreach(f IN LISTS files)
    file(SHA256 "${dir}/${f}" h)
    string(APPEND all "${f} ${h}\n")
  endforeach()
  string(SHA256 digest "${all}")
  set(${out} "${digest}" PARENT_SCOPE)
endfunction()

function(_mfld_eigen_version dir out)
  set(version "")
  if(EXISTS "${dir}/Eigen/src/Core/util/Macros.h")
    file(STRINGS "${dir}/Eigen/src/Core/util/Macros.h" lines REGEX "#define EIGEN_(WORLD|MAJOR|MINOR)_VERSION +[0-9]+")
    set(parts "")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE ".* ([0-9]+).*" "\\1" number "${line}")
      list(APPEND parts ${number})
    endforeach()
    list(JOIN parts "." version)
  endif()
  set(${out} "${version}" PARENT_SCOPE)
endfunction()

set(_source "")
set(_dir "")
set(_stage "${CMAKE_BINARY_DIR}/third_party/eigen-${MFLD_EIGEN_PIN}")
if(MFLD_EIGEN_DIR)
  foreach(_try "${MFLD_EIGEN_DIR}" "${MFLD_EIGEN_DIR}/include/eigen3")
    if(NOT _dir AND EXISTS "${_try}/Eigen/Core")
      set(_dir "${_try}")
    endif()
  endforeach()
  if(NOT _dir)
    message(FATAL_ERROR "MFLD_EIGEN_DIR=${MFLD_EIGEN_DIR} holds no Eigen/Core")
  endif()
  set(_source "MFLD_EIGEN_DIR")
endif()
if(NOT _dir)
  find_package(Python REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND
      "${Python_EXECUTABLE}" -c
      "import importlib.metadata as m; d = m.distribution('cmeel-eigen'); print(d.version, d.locate_file('cmeel.prefix/include/eigen3'), sep=';')"
    OUTPUT_VARIABLE _out
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
    RESULT_VARIABLE _failed)
  if(_failed EQUAL 0)
    list(GET _out 0 _version)
    list(GET _out 1 _from)
    if(_version VERSION_EQUAL MFLD_EIGEN_PIN AND EXISTS "${_from}/Eigen/Core")
      if(NOT EXISTS "${_stage}/.complete")
        file(REMOVE_RECURSE "${_stage}")
        file(COPY "${_from}/Eigen" DESTINATION "${_stage}")
        _mfld_tree_sha256("${_stage}" _digest)
        if(NOT _digest STREQUAL MFLD_EIGEN_TREE_SHA256)
          message(FATAL_ERROR
                  "cmeel-eigen ${_version}: the headers hash to ${_digest}, pinned is ${MFLD_EIGEN_TREE_SHA256}")
        endif()
        file(TOUCH "${_stage}/.complete")
      endif()
    else()
      message(STATUS "mfld: cmeel-eigen ${_version} is installed, ${MFLD_EIGEN_PIN} is wanted: not used")
    endif()
  endif()
  if(EXISTS "${_stage}/.complete")
    set(_dir "${_stage}")
    set(_source "PyPI cmeel-eigen, staged")
  endif()
endif()
if(NOT _dir)
  find_package(Eigen3 ${MFLD_EIGEN_MIN} CONFIG QUIET)
  if(TARGET Eigen3::Eigen)
    get_target_property(_dir Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
    list(GET _dir 0 _dir)
    set(_source "find_package(Eigen3)")
  endif()
endif()
if(NOT _dir)
  message(FATAL_ERROR
          "Eigen was not found. 'pip install .' brings it by itself; for a bare CMake build do one of:\n"
          "  pip install cmeel-eigen==${MFLD_EIGEN_PIN}\n"
          "  apt-get install libeigen3-dev\n"
          "  cmake -DMFLD_EIGEN_DIR=/path/to/eigen ...")
endif()
_mfld_eigen_version("${_dir}" _have)
if(_have VERSION_LESS MFLD_EIGEN_MIN OR _have VERSION_GREATER_EQUAL 4)
  message(FATAL_ERROR "Eigen at ${_dir} is '${_have}'; >=${MFLD_EIGEN_MIN},<4 is wanted")
endif()
message(STATUS "mfld: Eigen ${_have} from ${_source}: ${_dir}")

add_library(mfld_eigen INTERFACE)
target_include_directories(mfld_eigen SYSTEM INTERFACE "${_dir}")
# MPL2 only; Eigen's own threads are off, since the kernels thread outside of it.
target_compile_definitions(mfld_eigen INTERFACE EIGEN_MPL2_ONLY EIGEN_DONT_PARALLELIZE MFLD_EIGEN_VERSION="${_have}")
