# The Python module. The files in bindings/ alone see Python and pybind11.
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 2.13 CONFIG REQUIRED)

# NO_EXTRAS: link-time optimisation could carry code across the instruction sets.
set(bindings ${CMAKE_CURRENT_SOURCE_DIR}/bindings)
set(binding_sources ${bindings}/module.cpp ${bindings}/tensors.cpp)
if(VF_CUDA_VERSION)
  list(APPEND binding_sources ${bindings}/cuda.cpp ${bindings}/cuda_views.cpp)
endif()
pybind11_add_module(_C MODULE NO_EXTRAS ${binding_sources})
target_link_libraries(_C PRIVATE vf_options vf_kernels)
# One symbol goes out. Instantiations of the standard library's templates stay in, where no other
# library of the process can put its own in their place.
if(UNIX AND NOT APPLE)
  set(exports ${CMAKE_CURRENT_LIST_DIR}/exports.map)
  target_link_options(_C PRIVATE -Wl,--version-script=${exports})
  set_target_properties(_C PROPERTIES LINK_DEPENDS ${exports})
endif()

string(JOIN " " flags ${vf_cxx_flags})
string(JOIN " " isas ${VF_ISAS})
target_compile_definitions(_C PRIVATE
  VF_VERSION="${VF_VERSION}"
  VF_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
  VF_FLAGS="${flags}"
  VF_ISAS="${isas}"
  VF_CUDA_VERSION="${VF_CUDA_VERSION}"
  VF_CUDA_ARCHS="${VF_CUDA_ARCHS}")
